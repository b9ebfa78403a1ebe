"""Crossings against closed forms and root finding, and how often their errors cover the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from simulations import coverage, tried

from lazy_lightning.analysis import crossing
from lazy_lightning.analysis.crossing import last_crossings
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError

NAN = np.nan
X = np.logspace(-2, 2, 9)


def drift(x):
    """1 on the feature side, 1/x on the lazy one."""
    return 1 / (1 + x)


def noisy(seeds=5, seed=0, x=X, size=0.2):
    rng = np.random.default_rng(seed)
    return drift(x)[:, None] * np.exp(size * rng.normal(size=(len(x), seeds)) + size * rng.normal(size=seeds))


# ---------------------------------------------------------------------- where it is


@pytest.mark.parametrize("slope", [-2.0, -0.3, 1.0])
@pytest.mark.parametrize("at", [0.013, 1.0, 70.0])
def test_a_power_law_crosses_where_it_should(slope, at):
    found = crossing(X, 3 * X**slope, 3 * at**slope)
    assert found.value == pytest.approx(at, rel=1e-12)
    assert found.below <= at * (1 + 1e-12)
    assert at <= found.above * (1 + 1e-12)
    assert found.above / found.below == pytest.approx(np.sqrt(10))  # half decades
    assert found.crossings == 1


def test_the_curve_is_linear_in_logarithms_between_geometric_means():
    y = noisy()
    means = np.log(y).mean(axis=1)
    expected = brentq(lambda u: np.interp(u, np.log(X), means) - np.log(0.3), np.log(X[0]), np.log(X[-1]), xtol=1e-14)
    assert crossing(X, y, 0.3).value == pytest.approx(np.exp(expected), rel=1e-12)


def test_of_several_crossings_the_one_at_the_largest_x_is_taken():
    found = crossing([1.0, 2.0, 4.0, 8.0], [4.0, 1.0, 4.0, 1.0], 2.0)
    assert found.crossings == 3
    assert (found.below, found.above) == (4.0, 8.0)
    assert found.value == pytest.approx(4 * np.sqrt(2), rel=1e-14)


def test_a_touch_is_no_crossing():
    x = [1.0, 2.0, 4.0, 8.0]
    assert crossing(x, [2.0, 1.0, 1.0, 0.5], 1.0).value == pytest.approx(4.0, rel=1e-15)
    assert crossing(x, [2.0, 1.0, 2.0, 0.5], 1.0).crossings == 1
    assert crossing(x, [1.0, 2.0, 1.0, 0.5], 1.0).value == pytest.approx(4.0, rel=1e-15)
    for y in ([2.0, 1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 1.0], [1.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]):
        for heights in (np.array(y), 1 / np.array(y)):
            with pytest.raises(AnalysisError, match="never crosses 1"):
                crossing(x, heights, 1.0)


def test_rows_are_looked_at_each_by_itself():
    u = np.array([0.0, 1.0, 2.0, 3.0])
    heights = np.array([[1, -1, 1, -3], [-1, 1, 2, 3], [3, 2, 2, 1], [1, 2, 2, 3], [-3, 0, 0, 1.0], [2, 0, 2, 3]])
    assert last_crossings(u, heights) == pytest.approx([2.25, 0.5, np.inf, -np.inf, 2.0, -np.inf])


# ---------------------------------------------------------------------- its error


def test_the_error_is_that_of_the_height_over_the_slope():
    """Seeds that move the whole curve, at a place where it is a power law."""
    seeds = np.array([-0.2, -0.1, 0.05, 0.1, 0.15, 0.3, -0.25, 0.0])
    found = crossing(X, X[:, None] ** -2.0 * np.exp(seeds), 0.3, resamples=20_000)
    expected = widening(7) * seeds.std(ddof=1) / np.sqrt(8) / 2
    assert found.log10_error * np.log(10) == pytest.approx(expected, rel=0.05)  # of nearly normal resamples
    assert found.error == pytest.approx(found.value * np.log(10) * found.log10_error, rel=1e-14)
    assert found.missed == 0


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("shared", [False, True])
def test_two_errors_cover_the_crossing(shared, seeds):
    truth = np.log10(crossing(X, drift(X), 0.3).value)

    def estimate(rng):
        noise = 0.2 * rng.normal(size=(1 if shared else len(X), seeds))
        found = crossing(X, drift(X)[:, None] * np.exp(noise), 0.3, resamples=100)
        return np.log10(found.value), found.log10_error

    found = coverage(estimate, truth, simulations=400)
    assert 0.91 < found.share < 0.985
    assert 0.85 < found.error / found.deviation < 1.2 * widening(seeds - 1)


def test_resamples_that_never_cross_are_not_forgotten():
    """The last mean is just under the level, and half of what it could have been is above."""
    y = drift(X)[:, None] * np.exp(np.array([-0.3, -0.1, 0.1, 0.3]))
    near = crossing(X, y, drift(X)[-1] * 1.001)
    assert near.value == pytest.approx(X[-1], rel=2e-3)
    assert 0.35 < near.missed < 0.65
    assert near.error == near.log10_error == np.inf
    assert str(near).endswith("(error not bounded)")
    farther = crossing(X, y, drift(X)[-1] * 1.2)
    assert 0.02 < farther.missed < 0.14
    plain = crossing(X, y, drift(X)[-2])
    assert farther.log10_error == pytest.approx(plain.log10_error, rel=0.15)


def test_one_seed_has_no_error():
    found = crossing(X, drift(X), 0.3)
    assert np.isnan([found.error, found.log10_error, found.missed]).all()
    assert found == pytest.approx(crossing(X, drift(X)[:, None], 0.3), nan_ok=True)


def test_equal_seeds_have_error_zero():
    assert crossing(X, np.tile(drift(X)[:, None], 4), 0.3).error == 0


# ---------------------------------------------------------------------- what is missing, and invariances


def test_empty_columns_and_points_change_nothing():
    y = noisy(4)
    padded = np.full((11, 6), NAN)
    padded[np.ix_([0, 1, 3, 4, 5, 6, 7, 8, 10], [0, 2, 3, 5])] = y
    padded[2, 0] = 1e6  # one seed alone
    x = np.insert(X, [2, 8], [0.05, 40.0])
    assert crossing(x, padded, 0.3) == crossing(X, y, 0.3)


def test_missing_seeds():
    y = noisy(6)
    y[2, 3] = y[5, 0] = y[6, 0] = NAN
    means = np.nanmean(np.log(y), axis=1)
    expected = np.interp(-np.log(0.3), -means, np.log(X))  # these fall all the way
    found = crossing(X, y, 0.3)
    assert found.value == pytest.approx(np.exp(expected), rel=1e-12)
    assert 0 < found.error < found.value


@given(
    seed=st.integers(0, 10**6),
    seeds=st.integers(1, 5),
    a=st.floats(1e-6, 1e6),
    b=st.floats(1e-6, 1e6),
)
def test_units_move_the_crossing(seed, seeds, a, b):
    y = noisy(seeds, seed)
    found, scaled = crossing(X, y, 0.3, resamples=50), crossing(a * X, b * y, b * 0.3, resamples=50)
    for name in ("value", "below", "above"):
        assert getattr(scaled, name) == pytest.approx(a * getattr(found, name), rel=1e-10)
    assert scaled.log10_error == pytest.approx(found.log10_error, rel=1e-8, nan_ok=True)  # log x up to 20
    assert scaled.error == pytest.approx(a * found.error, rel=1e-8, nan_ok=True)
    assert scaled.crossings == found.crossings


@given(seed=st.integers(0, 10**6), seeds=st.integers(1, 5))
def test_the_order_of_points_and_seeds_does_not_matter(seed, seeds):
    rng = np.random.default_rng(seed)
    y = noisy(seeds, seed)
    y[rng.random(y.shape) < 0.05] = NAN
    rows, columns = rng.permutation(len(X)), rng.permutation(seeds)
    found = tried(crossing, X, y, 0.3, resamples=50)
    moved = tried(crossing, X[rows], y[rows][:, columns], 0.3, resamples=50)
    assert repr(moved) == repr(found)  # to the bit, NaNs too


@given(seed=st.integers(0, 10**6), power=st.floats(0.1, 10.0))
def test_powers_of_y_do_not_move_the_crossing(seed, power):
    y = noisy(4, seed)
    found, powered = crossing(X, y, 0.3, resamples=50), crossing(X, y**power, 0.3**power, resamples=50)
    assert powered.value == pytest.approx(found.value, rel=1e-9)
    assert powered.log10_error == pytest.approx(found.log10_error, rel=1e-7)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crossing(X, drift(X), 0.005), "from 0.990099 to 0.00990099|from 0.00990099 to 0.990099, all above"),
        (lambda: crossing(X, drift(X), 0.005), "extend the sweep to larger x"),
        (lambda: crossing(X, drift(X), 1.5), "all below; extend the sweep to smaller x"),
        (lambda: crossing(X, X, 1000.0), "all below; extend the sweep to larger x"),
        (lambda: crossing([1.0], [1.0], 0.5), "two points at least, got 1"),
        (lambda: crossing(X, np.full((9, 2), NAN), 0.5), "two points at least, got 0"),
        (lambda: crossing(X, drift(X), 0.0), "level is 0.0"),
        (lambda: crossing(X, drift(X), NAN), "level is nan"),
        (lambda: crossing(X, X - X[0], 0.5), r"y\[0, 0\] is 0"),
        (lambda: crossing([1.0, 1.0], [0.1, 1.0], 0.5), "x = 1 occurs twice"),
        (lambda: crossing(X, noisy(), 0.3, resamples=3), "resamples is 3"),
    ],
)
def test_refused_crossings(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()
