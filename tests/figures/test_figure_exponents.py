"""Figures of runs whose laws are known: what they find, what they write down, and what they refuse to draw."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from made_runs import SCALES, STAR, WIDTHS, made_kernels, made_sweep, seed_factor
from numpy.testing import assert_allclose

from lazy_lightning.analysis import binomial_error
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.flow_curves import flow_curves
from lazy_lightning.figures.generalization_error import generalization_error as error_figure
from lazy_lightning.figures.kernel_drift import kernel_drift
from lazy_lightning.figures.leaving_time import DEFINITIONS, leaving_time
from lazy_lightning.figures.output_growth import output_growth
from lazy_lightning.figures.phase_diagram import edges, phase_diagram
from lazy_lightning.figures.style import paper_style, save
from lazy_lightning.runs import load_runs

FIGURES = {
    "test_error": error_figure,
    "kernel_drift": kernel_drift,
    "phase_diagram": phase_diagram,
    "leaving_time": leaving_time,
    "flow_curves": flow_curves,
    "output_growth": output_growth,
}
EXACT = 1e-6
"""The made laws are exact; alpha is written with ten digits, and crossings are interpolated."""
TIGHT = 1e-12
"""A few roundings."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_kernels(made_sweep(tmp_path_factory.mktemp("sweep"))))


def first_number(finding):
    return float(re.match(r"-?[\d.]+(e[-+]\d+)?", finding).group())


def numbers(drawn, start):
    return [first_number(text) for name, text in drawn.findings.items() if name.startswith(start)]


def column(drawn, name, h, **where):
    rows = drawn.table[drawn.table["h"] == h]
    for key, value in where.items():
        rows = rows[rows[key] == value]
    return rows[name].to_numpy(dtype=float)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_whole(runs, name, tmp_path):
    drawn = FIGURES[name](runs)
    assert drawn.name == name
    assert drawn.title
    assert drawn.findings
    assert 40 < len(drawn.caption) < 1000
    assert drawn.caption.endswith(".")
    assert "4 seeds" in drawn.caption
    assert set(drawn.table.columns) >= {"h", "alpha", "sqrt_h_alpha", "seeds", "mean"}
    assert all(path.stat().st_size > 5000 for path in save(drawn.figure, tmp_path / name))


def test_kernel_drift_finds_both_slopes_and_the_collapse(runs):
    drawn = kernel_drift(runs)
    assert_allclose(np.array(numbers(drawn, "slope, lazy side")), np.full(3, -1.0), rtol=EXACT)
    assert_allclose(np.array(numbers(drawn, "slope, feature side")), np.full(3, -1.6), rtol=EXACT)
    assert numbers(drawn, "best collapse on h^a alpha") == [0.5]
    assert numbers(drawn, "collapse on sqrt(h) alpha") == [0.0]
    s = np.array(SCALES)
    expected = np.where(s <= 1, s**-1.6, 1 / s)
    for h in WIDTHS:
        assert_allclose(column(drawn, "mean", h)[s != 1], expected[s != 1], rtol=1e-8)
        g = np.log([seed_factor(e, 4) for e in range(4)])
        above = np.exp(g.std(ddof=1) / 2 * widening(3))
        assert_allclose(column(drawn, "high", h)[s != 1], above * expected[s != 1], rtol=1e-8)


def test_phase_diagram_finds_alpha_star(runs):
    drawn = phase_diagram(runs)
    assert numbers(drawn, "exponent of alpha*") == [-0.5]
    for h in WIDTHS:
        assert_allclose(column(drawn, "sqrt_h_alpha", h, quantity="alpha*"), np.array([STAR]), rtol=EXACT)
    assert "h^(-0.500 ± " in drawn.caption


def test_two_widths_make_no_exponent(tmp_path):
    drawn = phase_diagram(load_runs(made_sweep(tmp_path, widths=[30, 300])))
    assert numbers(drawn, "exponent") == []
    assert len(numbers(drawn, "alpha*")) == 2
    assert "too few for an exponent" in drawn.caption


def test_cells_touch_halfway_between_points():
    centres = np.array([1.0, 3.0, 30.0])
    found = edges(centres)
    assert_allclose(np.sqrt(centres[:-1] * centres[1:]), found[1:-1], rtol=TIGHT)
    assert_allclose(found[[0, -1]] * found[[1, -2]], centres[[0, -1]] ** 2, rtol=TIGHT)
    alone = edges(np.array([5.0]))
    assert_allclose(alone.prod(keepdims=True), np.array([25.0]), rtol=TIGHT)


def test_leaving_time_grows_as_sqrt_h_alpha(runs):
    drawn = leaving_time(runs)
    for definition in ("t1/half_loss", "t1/kernel_drift"):
        assert_allclose(np.array(numbers(drawn, f"slope of t1 ({DEFINITIONS[definition]})")), np.ones(3), rtol=EXACT)
    assert numbers(drawn, "t_lazy along the labels") == [10.0]


def test_leaving_time_is_averaged_where_all_have_left(runs):
    """Of the seeds that happen to leave the mean says little: they stand alone."""
    some = runs.copy()
    lone = (some["h"] == 100) & np.isclose(some["sqrt_h_alpha"], SCALES[0], rtol=1e-6) & (some["seed"] > 0)
    some.loc[lone, "t1/half_loss"] = np.nan
    table = leaving_time(some).table
    at_point = table[(table["h"] == 100) & (table["definition"] == "t1/half_loss") & (table["sqrt_h_alpha"] < 1.1e-3)]
    assert at_point["mean"].isna().all()
    assert at_point["seed"].dropna().tolist() == [0]


def test_leaving_time_without_the_kernel_goes_by_the_departure(tmp_path):
    drawn = leaving_time(load_runs(made_sweep(tmp_path, without=["kernel_", "t1/kernel"])))
    assert all("tangent departure > 0.9" in text for name, text in drawn.findings.items() if "slope" in name)
    assert_allclose(np.array(numbers(drawn, "slope of t1 (train loss halved)")), np.ones(3), rtol=EXACT)


def test_error_knows_plateau_kernels_and_ensembles(runs):
    drawn = error_figure(runs)
    assert numbers(drawn, "lazy plateau") == [10.0] * 3
    assert numbers(drawn, "kernel at init") == [10.0] * 3
    for h in WIDTHS:
        rows = runs[(runs["h"] == h) & (runs["model"] == "network")]
        point = rows[rows["alpha"] == rows["alpha"].min()]
        outputs = point.outputs.load("test")
        wrong = 100 * (outputs.outputs.mean(axis=0) * outputs.labels <= 0).mean()
        assert_allclose(column(drawn, "mean", h, model="ensemble"), np.full(len(SCALES), wrong), rtol=TIGHT)
    low = np.where(np.array(SCALES) < 0.9, 8.0, 10.0)
    off = ~np.isclose(SCALES, 1.0)  # where alpha's tenth digit decides
    assert_allclose(column(drawn, "mean", 300, model="network")[off], low[off], rtol=TIGHT)


def test_error_states_what_the_test_samples_add(runs):
    """The binomial error, and the ends of the sweep paired over seeds and samples: the made outputs are equal there."""
    found = error_figure(runs.assign(**{"data.n_test": 40})).findings
    expected = 100 * binomial_error(0.1, 40)
    assert found["sampling error of the test set, h = 100"].startswith(f"{expected:.2g} % (binomial, 40 samples, at")
    paired = found["test error, largest minus smallest alpha, h = 100"]
    assert paired.startswith("0 ± 0 %, p = 1 (")
    assert paired.endswith("paired over 4 seeds of the weights and 40 test samples)")
    assert not any("sampling error" in name for name in error_figure(runs.drop(columns="data.n_test")).findings)


def plateau_of(runs):
    return {name: text for name, text in error_figure(runs).findings.items() if "plateau" in name}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Its test error is the same at all alphas, the deepest of feature learning too."""
    folder = made_sweep(tmp_path_factory.mktemp("flat"), widths=[100], arrays=False)
    runs = load_runs(folder)
    return runs.assign(**{"test/error": 0.1 + 0.005 * (runs["seed"] - 1.5)})


def test_a_lazy_plateau_begins_where_networks_are_lazy(flat):
    (text,) = plateau_of(flat).values()
    assert "from sqrt(h) alpha = 31.6 (kernel drift < 0.1 and tangent departure < 0.1)" in text


def test_a_lazy_plateau_heeds_the_tangent_departure_alone(flat):
    found = plateau_of(flat.drop(columns="kernel_drift/total"))
    assert list(found) == ["lazy plateau, h = 100"]
    assert "from sqrt(h) alpha = 31.6 (tangent departure < 0.1)" in found["lazy plateau, h = 100"]


def test_a_plateau_of_feature_learning_is_not_lazy(flat):
    (text,) = plateau_of(flat.assign(**{"kernel_drift/total": 383.0})).values()
    assert text.startswith("none: 0 points with kernel drift < 0.1")


def stopped_early(folder, share):
    """The same runs, every member at the step limit with its training loss at a share of the start."""
    for path in folder.rglob("summary.json"):
        summary = json.loads(path.read_text())
        for member in summary["members"]:
            member["stop"] = "max_steps"
        path.write_text(json.dumps(summary))
        curves = pd.read_parquet(path.with_name("curves.parquet"))
        curves["train/loss"] = np.where(curves["t"] == 0, 2.0, 2.0 * share)
        curves.to_parquet(path.with_name("curves.parquet"))
    runs = load_runs(folder)
    return runs.assign(**{"test/error": 0.1 + 0.005 * (runs["seed"] - 1.5)})


def test_a_plateau_of_what_has_hardly_been_trained_is_not_called_lazy(tmp_path):
    """Any network is close to its linearisation before it has learnt anything."""
    folder = made_sweep(tmp_path, widths=[100], arrays=False)
    (early,) = plateau_of(stopped_early(folder, 0.9)).values()
    assert early.startswith("none: 0 points with kernel drift < 0.1")
    assert "the training loss has not fallen to 50 %: 4 larger alphas" in early
    (far,) = plateau_of(stopped_early(folder, 0.3)).values()
    assert "from sqrt(h) alpha = 31.6 (kernel drift < 0.1 and tangent departure < 0.1)" in far


def test_a_plateau_without_observers_is_not_called_lazy(flat):
    found = plateau_of(flat.drop(columns=["kernel_drift/total", "tangent_departure"]))
    assert list(found) == ["plateau, not shown to be lazy, h = 100"]
    assert "over 6 decades" in found["plateau, not shown to be lazy, h = 100"]


def test_findings_have_no_names_of_columns(runs):
    """In words for readers of the page: no slashes or underscores, and errors of positive numbers as factors."""
    for name in ("test_error", "phase_diagram", "leaving_time"):
        for key, text in FIGURES[name](runs).findings.items():
            assert not re.search(r"\w/[a-z]|\by\b", f"{key} {text}"), (key, text)
    alone = phase_diagram(runs).findings["alpha*, h = 100"]
    assert re.fullmatch(r"0\.\d+ \(within a factor 1\.\d+\)", alone)


def test_kernels_at_the_end_follow_alpha(runs):
    networks = runs[(runs["model"] == "network") & (runs["h"] == 100)]
    ends = networks.assign(**{"model": "kernel at end", "test/error": networks["test/error"] - 0.01})
    drawn = error_figure(pd.concat([runs, ends], ignore_index=True))
    found, expected = (column(drawn, "mean", 100, model=model) for model in ("kernel at end", "network"))
    assert_allclose(found, expected - 1.0, rtol=TIGHT)
    assert "end of training" in drawn.caption


def test_a_kernel_of_several_alphas_is_one(runs):
    """The kernel at initialisation does not depend on alpha, and its seeds are counted once."""
    again = runs[runs["model"] == "kernel at init"].assign(alpha=7.0)
    one, both = (error_figure(table).table for table in (runs, pd.concat([runs, again], ignore_index=True)))
    pd.testing.assert_frame_equal(one, both)


def test_ensemble_over_several_runs(tmp_path):
    """Seeds in runs of their own are one ensemble: what each run says of its own is not it."""
    made_sweep(tmp_path / "one", widths=[30], seeds=2)
    made_sweep(tmp_path / "two", widths=[30], seeds=2)
    runs = load_runs(tmp_path, duplicates=True)
    runs.loc[runs["run"].str.startswith("two"), "seed"] += 2
    runs["run/test/ensemble_error"] = 0.77
    drawn = error_figure(runs)
    chosen = runs[runs["alpha"] == runs["alpha"].min()].outputs.load("test")
    wrong = 100 * (chosen.outputs.mean(axis=0) * chosen.labels <= 0).mean()
    assert len(chosen.outputs) == 4
    assert_allclose(column(drawn, "mean", 30, model="ensemble")[:1], np.array([wrong]), rtol=TIGHT)


@pytest.mark.parametrize("split", [False, True])
def test_ensemble_without_outputs_is_what_one_run_says(tmp_path, split):
    runs = load_runs(made_sweep(tmp_path, widths=[30], arrays=False, test__ensemble_error=0.05))
    if split:
        runs["run"] = runs["run"] + runs["seed"].astype(str)
    found = error_figure(runs).table
    ensemble = found[found["model"] == "ensemble"]["mean"].tolist()
    assert ensemble == ([] if split else pytest.approx([5.0] * len(SCALES)))


def test_flow_curves_halve_at_t1(runs):
    drawn = flow_curves(runs)
    table = drawn.table[(drawn.table["quantity"] == "train/loss") & (drawn.table["unit"] == "t1/half_loss")]
    assert set(table["h"]) == {300}
    assert table["alpha"].nunique() == 5
    for _, curve in table.groupby("alpha"):
        # made as 0.5^(t/t1); between two observations the flow's own curve is interpolated linearly in log t
        assert np.interp(0.0, np.log(curve["t"]), curve["mean"]) == pytest.approx(0.5, abs=0.02)
        assert_allclose(curve["low"].to_numpy(), curve["high"].to_numpy(), rtol=1e-9)  # all seeds fall on one another


def test_output_growth_has_the_ends(runs):
    table = output_growth(runs).table
    assert_allclose(table[table["at"] == "end"]["mean"].to_numpy(), np.full(3 * len(SCALES), 1.5), rtol=TIGHT)
    assert table[table["at"] == "t"].groupby("alpha")["mean"].last().to_numpy() == pytest.approx(1.5, rel=0.01)


POOR = {
    "one width": {"widths": [100]},
    "one seed": {"seeds": 1},
    "one alpha": {"scales": [1.0]},
    "one member": {"widths": [100], "scales": [2.0], "seeds": 1},
    "no width": {"widths": [None]},
    "failed members": {"failed": [0, 5, 6, 7, 4]},
    "nothing but losses": {"without": ["kernel_", "t1/", "t_lazy", "tangent", "test/error"]},
    "no arrays": {"arrays": False},
    "zeros": {"kernel_drift__total": 0.0, "test__error": 0.0, "test__output_rms": 0.0, "t1__half_loss": 0.0},
}
NOT_DRAWN = {
    ("one width", "phase_diagram"): "two widths at least",
    ("one member", "phase_diagram"): "two widths at least",
    ("no width", "phase_diagram"): "two widths at least",
    (
        "nothing but losses",
        "kernel_drift",
    ): r"the drift of the tangent kernel was not measured: add callbacks/ntk\.yaml",
    (
        "nothing but losses",
        "phase_diagram",
    ): r"the drift of the tangent kernel was not measured: add callbacks/ntk\.yaml",
    ("nothing but losses", "leaving_time"): r"add callbacks/t1\.yaml",
    ("zeros", "kernel_drift"): "0 everywhere",
    ("zeros", "phase_diagram"): "a kernel that has moved",
    ("zeros", "output_growth"): "0 everywhere",
}


@pytest.mark.parametrize("case", POOR)
def test_poor_data(case, tmp_path):
    options = {"widths": [30, 100], "scales": [1e-2, 1.0, 1e2], "seeds": 2, **POOR[case]}
    runs = load_runs(made_sweep(tmp_path / "runs", **options))
    for name, figure in FIGURES.items():
        reason = NOT_DRAWN.get((case, name))
        if reason is None:
            drawn = figure(runs)
            assert len(drawn.table) > 0
            assert (" failed of " in drawn.caption) == (case == "failed members")
            with paper_style():  # the layout, which takes the longest, is that of whole data
                drawn.figure.set_layout_engine("none")
                drawn.figure.draw_without_rendering()
        else:
            with pytest.raises(AnalysisError, match=reason):
                figure(runs)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_finished(runs, name):
    with pytest.raises(AnalysisError, match="no member of a network has finished"):
        FIGURES[name](runs.assign(status="failed"))


def test_flow_curves_need_curves(runs):
    with pytest.raises(AnalysisError, match="has the training loss and the test error in its curves"):
        flow_curves(pd.DataFrame(runs).drop(columns=["path", "member"]))
