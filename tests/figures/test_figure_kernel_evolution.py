"""The kernel on the way: the numbers of made sweeps, and runs without them."""

import numpy as np
import pytest
from made_runs import columns, made_sweep

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.kernel_evolution import kernel_evolution
from lazy_lightning.runs import load_runs


def last(table, quantity, alpha):
    """Mean at the end of a curve against t."""
    chosen = table[(table["quantity"] == quantity) & np.isclose(table["alpha"], alpha)]
    return float(chosen["mean"].iloc[-1])


def test_numbers_drawn_are_those_of_the_members(tmp_path):
    found = kernel_evolution(load_runs(made_sweep(tmp_path, widths=(100,), scales=(0.1, 10.0), arrays=False)))
    for scale in (0.1, 10.0):
        members = [columns(100, scale / 10, seed, 4) for seed in range(4)]
        for quantity, column, factor in (
            ("kernel", "kernel_evolution/test_error", 100.0),
            ("kernel_by_loss", "kernel_evolution/test_error", 100.0),
            ("network", "test/error", 100.0),
            ("labels", "kernel_evolution/label_alignment", 1.0),
            ("norm", "kernel_evolution/norm", 1 / 3.0),
        ):
            mean = factor * np.mean([member[column] for member in members])
            assert last(found.table, quantity, scale / 10) == pytest.approx(mean, rel=1e-9), (quantity, scale)
    falls = found.table[found.table["quantity"] == "kernel_by_loss"]["value"]
    assert falls.min() > 1
    assert falls.max() == pytest.approx(2.0**10)  # the loss is halved ten times
    assert "regression with Theta_0" in found.caption
    assert found.caption.count("standard error over 4 seeds of the weights, widened by Student's t") == 2


def test_what_was_not_observed_is_named(tmp_path):
    runs = load_runs(made_sweep(tmp_path, widths=(30,), arrays=False, without=("kernel_evolution",)))
    named = r"has the evolution of the tangent kernel and .* in its curves: add callbacks/evolution.yaml"
    with pytest.raises(AnalysisError, match=named):
        kernel_evolution(runs)
