"""The table of runs as curves, against runs made by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import SCALES, WIDTHS, made_kernels, made_sweep, seed_factor
from numpy.testing import assert_allclose

from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.draws import AVERAGED, BOTH, DATA, WEIGHTS
from lazy_lightning.figures.sweep_table import (
    KERNEL_AT_INIT,
    WidthCurve,
    counted_seeds,
    errors_phrase,
    has,
    seeds_phrase,
    sorted_widths,
    unfinished_note,
    width_curves,
)
from lazy_lightning.runs import load_runs

NAN = float("nan")
TIGHT = 1e-13
"""A few roundings."""


def rows(**columns):
    return pd.DataFrame({"status": "finished", "model": "network", "h": 100.0, "alpha": 1.0, "seed": 0, **columns})


def test_curves_of_runs_on_the_disk(tmp_path):
    runs = load_runs(made_kernels(made_sweep(tmp_path, seeds=2), seeds=2))
    curves = width_curves(runs, "displacement/total")
    assert [curve.h for curve in curves] == list(WIDTHS)
    for curve in curves:
        assert curve.seeds == (0, 1)
        assert_allclose(curve.scale, np.array(SCALES), rtol=1e-9)  # alpha is written with ten digits
        expected = np.array([seed_factor(0, 2), seed_factor(1, 2)]) / (curve.scale * np.sqrt(curve.h))[:, None]
        assert_allclose(curve.values, expected, rtol=1e-9)
    (lazy,) = {float(curve.alpha[0]) for curve in width_curves(runs, "test/error", KERNEL_AT_INIT)}
    assert lazy == 1.0


def test_only_finished_networks_count():
    status = ["finished", "failed", "unfinished", "finished"]
    runs = rows(status=status, alpha=[1.0, 1.0, 2.0, 2.0], x=[1.0, 9.0, 9.0, 2.0])
    runs = pd.concat([runs, rows(model=["kernel at init"], x=9.0)], ignore_index=True)
    (curve,) = width_curves(runs, "x")
    assert_allclose(curve.values, np.array([[1.0], [2.0]]), rtol=0)
    assert unfinished_note(runs) == " Left out: 1 failed and 1 unfinished of 4 members."
    assert unfinished_note(runs[runs["status"] == "finished"]) == ""


def test_holes_and_words_are_nan():
    runs = rows(alpha=[2.0, 1.0, 1.0, 1.0], seed=[0, 0, 1, 2], x=[4.0, 1.0, None, float("inf")])
    (curve,) = width_curves(runs, "x")
    assert_allclose(curve.alpha, np.array([1.0, 2.0]), rtol=0)
    assert curve.values.tolist() == [[1.0], [4.0]]  # seeds without any number are none
    assert curve.counts.tolist() == [1, 1]


def test_networks_without_a_width():
    runs = rows(h=[NAN, NAN, 30.0], alpha=[1.0, 4.0, 1.0], x=1.0)
    assert sorted_widths(runs)[1:] == [30.0]
    assert np.isnan(sorted_widths(runs)[0])
    without, width = width_curves(runs, "x")
    assert without.scale.tolist() == [1.0, 4.0]
    assert_allclose(width.scale, np.array([30**0.5]), rtol=TIGHT)
    assert width_curves(runs.drop(columns="h"), "x")[0].alpha.tolist() == [1.0, 4.0]


def test_what_is_missing_is_said():
    runs = rows(**{"t1/half_loss": [NAN]})
    with pytest.raises(AnalysisError, match=r"the time t1 .* was not measured: add callbacks/t1\.yaml"):
        width_curves(runs, "t1/half_loss")
    with pytest.raises(
        AnalysisError, match=r"the drift of the tangent kernel was not measured: add callbacks/ntk\.yaml"
    ):
        width_curves(runs, "kernel_drift/total")
    with pytest.raises(AnalysisError, match="no member of a kernel at init has finished"):
        width_curves(runs, "test/error", KERNEL_AT_INIT)
    assert not has(runs, "t1/half_loss")


def test_bands_against_numpy():
    values = np.array([[1.0, 2.0, 4.0], [3.0, NAN, NAN]])
    curve = WidthCurve(100.0, np.array([1.0, 2.0]), values, (0, 1, 2))
    band = curve.band(100.0)
    error = 100 * values[0].std(ddof=1) / np.sqrt(3) * widening(2)
    assert_allclose(band.mean, np.array([700 / 3, 300.0]), rtol=TIGHT)
    assert_allclose(band.high[:1], np.array([700 / 3 + error]), rtol=TIGHT)
    assert np.isnan(band.high[1])  # of one seed
    in_log = curve.log_band()
    assert_allclose(in_log.mean, np.array([2.0, 3.0]), rtol=TIGHT)
    assert_allclose(in_log.low[:1] * in_log.high[:1], np.array([4.0]), rtol=TIGHT)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_a_logarithm_never_sees_what_is_not_positive(numbers):
    values = np.array([numbers])
    curve = WidthCurve(1.0, np.array([1.0]), values, tuple(range(len(numbers))))
    positive = values[values > 0]
    found = curve.log_band().mean
    if positive.size:
        assert_allclose(found, np.exp(np.log(positive).mean(keepdims=True)), rtol=1e-12)
    else:
        assert np.isnan(found).all()


def test_seeds_are_counted():
    assert [counted_seeds(n) for n in ([], [1], [2, 2], [1, 3])] == ["no seeds", "1 seed", "2 seeds", "1 to 3 seeds"]


# ---------------------------------------------------------------------- draws


def of_seeds(weights, data, **columns):
    return rows(**{"seed": weights, "data.train_seed": data, **columns})


def test_a_draw_is_a_seed_where_each_seed_has_its_own_training_set():
    runs = of_seeds([0, 1, 2], [7, 8, 9], x=[1.0, 2.0, 4.0])
    (curve,) = width_curves(runs, "x")
    assert (curve.seeds, curve.over) == ((0, 1, 2), BOTH)
    assert curve.values.tolist() == [[1.0, 2.0, 4.0]]


def test_a_draw_is_a_training_set_where_each_has_several_seeds():
    """The mean over the weights of each training set: members of one training set are not independent."""
    runs = of_seeds([0, 1, 0, 1], [5, 5, 3, 3], x=[1.0, 3.0, 10.0, 20.0])
    (curve,) = width_curves(runs, "x")
    assert curve.over == AVERAGED
    assert curve.values.tolist() == [[15.0, 2.0]]
    assert seeds_phrase([curve]) == "2 training sets"
    assert errors_phrase([curve]).startswith(f"bands: standard error over {AVERAGED}, widened")


def test_one_seed_on_several_training_sets_and_several_seeds_on_one():
    (curve,) = width_curves(of_seeds([0, 0], [5, 3], x=[1.0, 3.0]), "x")
    assert (curve.over, curve.values.tolist()) == (DATA, [[3.0, 1.0]])
    (curve,) = width_curves(of_seeds([0, 1], [5, 5], x=[1.0, 3.0]), "x")
    assert (curve.over, curve.values.tolist()) == (WEIGHTS, [[1.0, 3.0]])
