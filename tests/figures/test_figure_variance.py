"""Variance over seeds, from outputs on disk: against its formula, 1/h, and what is refused."""

import itertools

import numpy as np
import pytest
from closeness import assert_close
from made_runs import NOISE, made_sweep
from safetensors.numpy import load_file, save_file

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.variance import variance
from lazy_lightning.runs import load_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_sweep(tmp_path_factory.mktemp("variance"), seeds=6))


def jackknife(F):
    """With the definitions: the variance without each seed."""
    without = [np.var(np.delete(F, j, axis=0), axis=0, ddof=1).mean() for j in range(len(F))]
    return np.sqrt((len(F) - 1) * np.var(without))


def test_slopes_are_minus_one_at_both_ends(runs):
    findings = variance(runs).findings
    assert len(findings) == 2
    for name, scale in (("large-alpha", "1000"), ("small-alpha", "0.001")):
        text = findings[f"slope of Var F against h, {name} end"]
        assert float(text.split(" ")[0]) == pytest.approx(-1, abs=1e-6)  # the noise of all widths is the same
        assert f"sqrt(h) alpha = {scale}" in text


def test_numbers_drawn_are_the_variances_of_the_outputs(runs):
    table = variance(runs).table
    first = runs[(runs["h"] == 100) & (runs["alpha"] == runs["alpha"][runs["h"] == 100].min())]
    F = first.outputs.load("test").outputs
    row = table[(table["panel"] == "scale") & (table["h"] == 100)].iloc[0]
    assert row["variance"] == pytest.approx(F.var(axis=0, ddof=1).mean(), rel=1e-12)
    assert row["error"] >= jackknife(F) * (1 - 1e-12)  # widened for few seeds, never narrowed
    assert row["seeds"] == 6
    assert row["variance"] == pytest.approx(NOISE / 100, rel=0.3)  # six seeds, forty samples: 10 %


def test_every_alpha_with_two_seeds_is_drawn(runs):
    table = variance(runs).table
    assert sorted(set(table["panel"])) == ["large-alpha end", "scale", "small-alpha end"]
    assert len(table[table["panel"] == "scale"]) == 3 * 13
    some = variance(runs[(runs["seed"] == 0) | (runs["sqrt_h_alpha"] > 50)]).table
    assert some[some["panel"] == "scale"]["sqrt_h_alpha"].min() == pytest.approx(100)


@pytest.mark.parametrize(
    ("made", "panels", "said"),
    [
        ({"widths": (100,)}, 1, "because no two widths have a common"),
        ({"widths": (None,)}, 1, "because no two widths have a common"),
        ({"widths": (30, 100)}, 2, "too few widths for a slope"),
        ({"seeds": 2}, 2, "of two seeds it has no error"),
        ({"scales": (1.0,)}, 2, "At the large-alpha end, √h α = 1"),
        ({"failed": (0,)}, 2, "over 3 to 4 seeds"),
    ],
)
def test_poor_data_are_drawn_as_far_as_they_go(tmp_path, made, panels, said):
    found = variance(load_runs(made_sweep(tmp_path / "runs", **made)))
    assert len(found.figure.axes) == panels
    assert said in found.caption
    found.figure.draw_without_rendering()


def test_one_alpha_has_one_end(tmp_path):
    assert set(variance(load_runs(made_sweep(tmp_path, scales=(1.0,)))).table["panel"]) == {"scale", "large-alpha end"}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"seeds": 1}, "no alpha has two seeds"),
        ({"arrays": False}, "outputs of the members were not kept"),
        ({"failed": range(156)}, "no member of a network has finished"),
    ],
)
def test_refused(tmp_path, made, message):
    runs = load_runs(made_sweep(tmp_path, **made))
    with pytest.raises(AnalysisError, match=message):
        variance(runs)


def test_outputs_of_one_width_alone_are_used(tmp_path):
    folder = made_sweep(tmp_path)
    (folder / "version_0" / "outputs.safetensors").unlink()
    assert set(variance(load_runs(folder)).table["h"]) == {100, 300}


def test_other_test_samples_are_refused(tmp_path):
    for name, seeds in (("a", 2), ("b", 3)):  # of the second, one member is new
        made_sweep(tmp_path / name, widths=(100,), seeds=seeds)
    path = tmp_path / "b" / "version_0" / "outputs.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"test/index": arrays["test/index"] + 1}, str(path))
    runs = load_runs([tmp_path / "a", tmp_path / "b"], duplicates=True)
    mixed = runs[(runs["run"] == "version_0") & ~runs.duplicated(["alpha", "seed"])]
    with pytest.raises(AnalysisError, match="different test samples"):
        variance(mixed)


def test_equal_outputs_have_no_variance(tmp_path):
    folder = made_sweep(tmp_path, widths=(100,))
    path = folder / "version_0" / "outputs.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"test/outputs": np.ones_like(arrays["test/outputs"])}, str(path))
    with pytest.raises(AnalysisError, match="do not differ"):
        variance(load_runs(folder))


def test_what_is_interpolated_is_called_so(tmp_path):
    """Two widths with one grid of sqrt(h) alpha each, which have their ends not in common."""
    made_sweep(tmp_path / "one", widths=(30,), scales=(1.0, 10.0, 100.0))
    made_sweep(tmp_path / "two", widths=(300,), scales=(0.5, 5.0, 50.0))
    found = variance(load_runs(tmp_path))
    assert "√h α = 50, interpolated at h = 30" in found.caption
    assert "√h α = 1, interpolated at h = 300" in found.caption
    ends = found.table[found.table["panel"] != "scale"]
    assert ends.sort_values(["panel", "h"])["interpolated"].tolist() == [True, False, False, True]


def test_ends_lie_on_the_curves(runs):
    """Where all widths have been trained at the same sqrt(h) alpha, interpolation changes nothing."""
    table = variance(runs).table
    curves = table[table["panel"] == "scale"].sort_values("sqrt_h_alpha").groupby("h")
    for (name, pick), column in itertools.product(
        (("small-alpha end", "first"), ("large-alpha end", "last")), ("variance", "error")
    ):
        ends = table[table["panel"] == name].set_index("h")[column]
        assert_close(ends.to_numpy(copy=True), getattr(curves, pick)()[column].to_numpy(copy=True), rtol=1e-9)
