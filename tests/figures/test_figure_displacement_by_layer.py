"""Weight displacement: the exponents of made sweeps, and what is said where data are poor."""

import numpy as np
import pytest
from closeness import assert_close
from made_runs import LAYERS, made_sweep, seed_factor

from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.displacement_by_layer import displacement_by_layer
from lazy_lightning.runs import load_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_sweep(tmp_path_factory.mktemp("displacement"), arrays=False))


def value(found, name):
    return float(found.findings[name].split(" ")[0])


def drawn_in(figure, axis):
    return figure.axes[axis].get_legend_handles_labels()[1]


def test_slopes_are_those_of_the_sweep(runs):
    found = displacement_by_layer(runs)
    for h in (30, 100, 300):
        assert value(found, f"slope of sqrt(h) ‖w − w0‖/‖w0‖, lazy side, h = {h}") == pytest.approx(-1, abs=1e-9)
    for layer, slope in zip(LAYERS, (-0.5, -1, -1, -0.5), strict=True):
        assert value(found, f"mean |dW| against h, {layer}") == pytest.approx(slope, abs=1e-9)
        assert value(found, f"‖w − w0‖/‖w0‖ against h, {layer}") == pytest.approx(-1, abs=1e-9)


def test_numbers_drawn_are_in_the_table(runs):
    table = displacement_by_layer(runs).table
    total = table[table["layer"] == "total"]
    assert_close(total["mean"].to_numpy(copy=True), 1 / total["sqrt_h_alpha"].to_numpy(copy=True), rtol=1e-9)
    # the largest alpha that h = 300 has, 1000/sqrt(300), is none of the others' points
    inside = table[(table["quantity"] == "dw_mean") & (table["layer"] == "hidden.1")]
    assert_close(inside["alpha"].to_numpy(copy=True), np.full(3, 1000 / np.sqrt(300)), rtol=1e-9)
    assert_close(inside["mean"].to_numpy(copy=True), np.sqrt(300) / 1000 / np.array([30.0, 100.0, 300.0]), rtol=1e-9)
    spread = np.exp(np.std([np.log(seed_factor(e, 4)) for e in range(4)], ddof=1) / 2 * widening(3))  # of four seeds
    assert_close((inside["high"] / inside["mean"]).to_numpy(copy=True), np.full(3, spread), rtol=1e-9)


def test_caption_tells_what_was_held_fixed(runs):
    found = displacement_by_layer(runs)
    assert "4 seeds" in found.caption
    assert "α = 57.7, the largest common to all widths" in found.caption
    assert "kernels drift by 0.0032 at most" in found.caption  # 1/s at h = 30: sqrt(30) 57.7 = 316
    assert "interpolated" in found.caption


@pytest.mark.parametrize(
    ("made", "panels", "said"),
    [
        ({"widths": (100,)}, 1, "because there is only one width"),
        ({"widths": (None,)}, 1, "because there is only one width"),
        ({"widths": (30, 100)}, 3, "Slope on the lazy side"),
        ({"seeds": 1}, 3, "1 seed"),
        ({"scales": (1.0,)}, 1, "Too few points on the lazy side"),
        ({"without": ("kernel_",)}, 3, "tangent departure < 0.1"),
        ({"without": ("kernel_", "tangent_")}, 3, "large-alpha side: -1.0"),
        ({"without": ("kernel_", "tangent_")}, 3, "the 3 largest alphas, not shown to be lazy"),
        ({"without": ("dw_",)}, 2, "By layer"),
        ({"without": ("dw_", "displacement/h")}, 1, "no measurements by layer"),
        ({"failed": (0, 5)}, 3, "Left out: 6 failed of 156 members"),
    ],
)
def test_poor_data_are_drawn_as_far_as_they_go(tmp_path, made, panels, said):
    found = displacement_by_layer(load_runs(made_sweep(tmp_path / "runs", arrays=False, **made)))
    assert len(found.figure.axes) == panels
    assert said in found.caption
    found.figure.draw_without_rendering()


def test_two_widths_have_no_slopes(tmp_path):
    found = displacement_by_layer(load_runs(made_sweep(tmp_path, widths=(30, 100), arrays=False)))
    assert not any("against h" in name for name in found.findings)
    assert drawn_in(found.figure, 1) == list(LAYERS)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"without": ("displacement",)}, "the displacement of the weights was not measured"),
        ({"displacement__total": 0.0}, "0 everywhere"),
        ({"failed": range(156)}, "no member of a network has finished"),
    ],
)
def test_refused(tmp_path, made, message):
    runs = load_runs(made_sweep(tmp_path, arrays=False, **made))
    with pytest.raises(AnalysisError, match=message):
        displacement_by_layer(runs)
