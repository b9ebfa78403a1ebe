"""Losses by width in both scalings, from made sweeps of which the loss is a known function of h and alpha."""

import pytest
from closeness import assert_close
from made_runs import made_sweep

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.loss_by_width import loss_by_width
from lazy_lightning.figures.style import space_labels
from lazy_lightning.runs import load_runs

WIDTHS = (16, 64, 256, 1024)


def made(folder, widths=WIDTHS, scales=(1.0, 4.0, 16.0)):
    """At h = 16, 64, 256, 1024 alpha is sqrt(h) alpha over 4, 8, 16, 32: no alpha is there four times."""
    runs = load_runs(made_sweep(folder, widths=widths, scales=scales, arrays=False))
    return runs.assign(**{"population/loss": runs["h"] ** -0.5 * runs["alpha"]})


def test_a_fixed_scale_is_a_curve(tmp_path):
    found = loss_by_width(made(tmp_path))
    assert sorted(set(found.table["scaling"])) == [rf"$\sqrt{{h}}\,\alpha = {s}$" for s in (1, 16, 4)]
    of_one = found.table[found.table["scaling"] == r"$\sqrt{h}\,\alpha = 4$"]
    assert of_one["h"].tolist() == list(WIDTHS)
    assert_close(of_one["mean"].to_numpy(copy=True), 4 / of_one["h"].to_numpy(dtype=float, copy=True), rtol=1e-9)
    assert found.findings["population loss, sqrt(h) alpha = 4"].startswith("0.25 at h = 16, least 0.00391 at h = 1024")
    assert found.figure.axes[0].get_yscale() == "log"
    assert "Population loss against the number h of neurons: geometric mean of 4 seeds" in found.caption
    found.figure.draw_without_rendering()


def test_on_a_logarithmic_axis_the_mean_is_geometric(tmp_path):
    """Seeds at 1/10 and 10 times the loss: no band reaches zero."""
    runs = made(tmp_path)
    runs["population/loss"] *= 10.0 ** (runs["seed"] % 2 * 2 - 1)
    found = loss_by_width(runs)
    of_one = found.table[found.table["scaling"] == r"$\sqrt{h}\,\alpha = 4$"]
    assert_close(of_one["mean"].to_numpy(copy=True), 4 / of_one["h"].to_numpy(dtype=float, copy=True), rtol=1e-9)
    assert (of_one["low"] > 0).all()
    assert "geometric mean of 4 seeds" in found.caption


def test_a_fixed_alpha_is_a_curve_too(tmp_path):
    """Powers of two in both: alpha = 1/4 is there at h = 16, 64, 256, 1024 as sqrt(h) alpha = 1, 2, 4, 8."""
    scales = tuple(2.0**k for k in range(4))
    found = loss_by_width(made(tmp_path, scales=scales))
    alphas = found.table[found.table["scaling"] == r"$\alpha = 0.25$"]
    assert_close(
        alphas["mean"].to_numpy(copy=True), 0.25 / alphas["h"].to_numpy(dtype=float, copy=True) ** 0.5, rtol=1e-9
    )
    assert {name for name in set(found.table["scaling"]) if "sqrt" not in name} == {r"$\alpha = 0.25$"}


def test_of_many_scales_six_are_drawn_at_most(tmp_path):
    found = loss_by_width(made(tmp_path, scales=tuple(2.0**k for k in range(8))))
    assert len(found.figure.axes[0].get_legend().get_texts()) <= 6


def test_without_a_population_loss_it_is_the_test_error(tmp_path):
    found = loss_by_width(made(tmp_path).drop(columns="population/loss"))
    assert found.title == "Test error by width"


def test_three_widths_are_too_few(tmp_path):
    with pytest.raises(AnalysisError, match="common to 4 widths or more: sweep more widths"):
        loss_by_width(made(tmp_path, widths=WIDTHS[:3]))


def test_ticks_between_powers_of_ten_leave_room(tmp_path):
    """Sixteen to a thousand is less than two decades, of which matplotlib would label more than fit."""
    found = loss_by_width(made(tmp_path))
    space_labels(found.figure)
    found.figure.draw_without_rendering()
    labels = {tick.get_text() for tick in found.figure.axes[0].get_xticklabels(minor=True)} - {""}
    assert labels <= {rf"$\mathdefault{{{d}\times 10^{{{e}}}}}$" for d in (2, 5) for e in range(4)}
    assert labels
