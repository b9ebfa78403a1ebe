"""Exponents against numpy and scipy, and how often their errors cover the truth."""

import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulations import coverage, tried

from lazy_lightning.analysis import power_law, power_law_of_points
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError

NAN = np.nan
X = np.logspace(0, 3, 8)


def noisy(seeds=5, seed=0, slope=-1.0, x=X):
    """Noise of its own at each point, and for each seed a slope and a height of its own."""
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.normal(size=(len(x), seeds)) + 0.3 * rng.normal(size=seeds)
    return 2 * x[:, None] ** (slope + 0.02 * rng.normal(size=seeds)) * np.exp(noise)


# ---------------------------------------------------------------------- the fit


@pytest.mark.parametrize("slope", [-1.7, 0.0, 0.5])
def test_an_exact_law(slope):
    law = power_law(X, 3 * X[:, None] ** slope * np.ones(4))
    assert law.slope == pytest.approx(slope, abs=1e-14)
    assert law.prefactor == pytest.approx(3, rel=1e-14)
    assert max(law.error, law.fit_error, law.seed_error, law.prefactor_error) < 1e-13
    assert (law.points, law.seeds) == (8, 4)
    assert_close(law.at(X), 3 * X**slope, rtol=1e-13)


def test_the_fit_is_least_squares_in_logarithms():
    y = noisy()
    law = power_law(X, y)
    expected = stats.linregress(np.log(X), np.log(y).mean(axis=1))
    assert law.slope == pytest.approx(expected.slope, rel=1e-12)
    assert law.prefactor == pytest.approx(np.exp(expected.intercept), rel=1e-12)
    assert law.fit_error == pytest.approx(expected.stderr, rel=1e-10)


def test_the_error_over_seeds_is_that_of_the_seeds_own_slopes():
    """With no seed missing the slope of the mean is the mean of the slopes."""
    y = noisy(seeds=6)
    slopes = np.polyfit(np.log(X), np.log(y), 1)[0]
    law = power_law(X, y, resamples=20_000)
    assert law.slope == pytest.approx(slopes.mean(), rel=1e-12)
    assert law.seed_error == pytest.approx(stats.sem(slopes), rel=6 * np.sqrt(0.5 / 20_000))


def test_one_seed_has_the_scatter_alone():
    y = noisy(seeds=1)
    law = power_law(X, y)
    expected = stats.linregress(np.log(X), np.log(y[:, 0]))
    assert np.isnan(law.seed_error)
    assert law.error == pytest.approx(widening(6) * expected.stderr, rel=1e-10)
    assert law.prefactor_error == pytest.approx(law.prefactor * widening(6) * expected.intercept_stderr, rel=1e-10)
    assert power_law(X, y[:, 0]) == pytest.approx(law, rel=0, nan_ok=True)


def test_seeds_that_agree_on_a_bent_curve_do_not_hide_the_bend():
    bent = np.exp(-0.1 * np.log(X) ** 2)[:, None] * (1 + 1e-3 * np.arange(5))
    law = power_law(X, bent)
    assert law.seed_error < 1e-10
    assert law.error == pytest.approx(widening(6) * law.fit_error, rel=1e-6)


def test_points_on_a_line_do_not_hide_seeds_that_differ():
    slopes = np.array([-1.2, -1.1, -1.0, -0.9, -0.8])
    law = power_law(X, X[:, None] ** slopes, resamples=20_000)
    assert law.fit_error < 1e-12
    assert law.error == pytest.approx(widening(4) * stats.sem(slopes), rel=0.03)  # six deviations of resamples


def test_the_error_is_the_sum_of_two_variances():
    """That of the seeds' own lines, and what the means lie off their line by more than the seeds do off theirs."""
    u, y = np.log(X), noisy(seeds=4, seed=2) * np.exp(0.1 * np.sin(np.arange(8.0) ** 2))[:, None]
    slopes, heights = np.polyfit(u, np.log(y), 1)
    off = np.log(y) - slopes * u[:, None] - heights
    excess = ((off.mean(axis=1) ** 2).sum() - (stats.sem(off, axis=1) ** 2).sum()) / 6
    parts = np.array([stats.sem(slopes) ** 2, excess / ((u - u.mean()) ** 2).sum()])
    assert 0.2 < parts[0] / parts[1] < 5  # both count
    expected = np.sqrt(parts.sum()) * widening(parts.sum() ** 2 / (parts**2 / [3, 6]).sum())
    assert power_law(X, y, resamples=20_000).error == pytest.approx(expected, rel=0.03)  # six deviations of resamples


# ---------------------------------------------------------------------- coverage


def independent(rng, shape):
    return 0.2 * rng.normal(size=shape)


def of_seeds(rng, shape):
    """Each seed has a height and a slope of its own."""
    return 0.5 * rng.normal(size=shape[1]) + 0.05 * np.log(X)[:, None] * rng.normal(size=shape[1])


def walks(rng, shape):
    """What a seed has at one point it keeps at the next."""
    return 0.1 * rng.normal(size=shape).cumsum(axis=0)


def of_points(rng, shape):
    """Points that lie off the line for all seeds, and little noise."""
    return 0.2 * rng.normal(size=(shape[0], 1)) + 0.05 * rng.normal(size=shape)


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("noise", [independent, of_seeds, walks, of_points])
def test_two_errors_cover_the_exponent(noise, seeds):
    def estimate(rng):
        law = power_law(X, 3 / X[:, None] * np.exp(noise(rng, (len(X), seeds))), resamples=100)
        return law.slope, law.error

    found = coverage(estimate, -1.0, simulations=400)
    assert 0.91 < found.share < 0.995  # 95.4 % expected, a standard deviation is 1 %
    assert abs(found.bias) < 4
    # The widening tells how much larger a just error is on the median, for few seeds.
    assert 0.9 < found.error / found.deviation < 1.3 * widening(seeds - 1)


@pytest.mark.parametrize("points", [3, 5, 12])
def test_two_errors_cover_the_exponent_of_one_seed(points):
    x = np.logspace(0, 2, points)

    def estimate(rng):
        law = power_law(x, x**-1.0 * np.exp(0.2 * rng.normal(size=points)))
        return law.slope, law.error

    assert 0.92 < coverage(estimate, -1.0, simulations=600).share < 0.985


@pytest.mark.parametrize(("true_over_stated", "share"), [(1.0, 0.93), (3.0, 0.8)])
def test_two_errors_cover_the_exponent_of_three_points(true_over_stated, share):
    """Mostly also where the errors that were given are three times too small; taken as given, they would cover half."""
    h, relative = np.array([30.0, 100.0, 300.0]), np.array([0.05, 0.1, 0.03])

    def estimate(rng):
        law = power_law_of_points(
            h, h**-0.5 * np.exp(true_over_stated * relative * rng.normal(size=3)), relative * h**-0.5
        )
        return law.slope, law.error

    assert share < coverage(estimate, -0.5, simulations=600).share < 0.995


# ---------------------------------------------------------------------- single points


def test_weights_are_those_of_polyfit():
    y, relative = noisy(1)[:, 0], np.linspace(0.05, 0.2, 8)
    law = power_law_of_points(X, y, relative * y)
    fitted, unscaled = np.polyfit(np.log(X), np.log(y), 1, w=1 / relative, cov="unscaled")
    scaled = np.polyfit(np.log(X), np.log(y), 1, w=1 / relative, cov=True)[1]
    assert_close(np.array([law.slope, np.log(law.prefactor)]), fitted, rtol=1e-12)
    assert law.seed_error == pytest.approx(np.sqrt(unscaled[0, 0]), rel=1e-10)
    assert law.fit_error == pytest.approx(np.sqrt(scaled[0, 0]), rel=1e-10)


def test_points_that_agree_with_their_errors_keep_them():
    y = X**-1.0
    law = power_law_of_points(X, y, 0.1 * y)
    assert law.fit_error < 1e-14
    assert law.error == pytest.approx(0.1 / np.sqrt(((np.log(X) - np.log(X).mean()) ** 2).sum()), rel=1e-5)
    assert law.seeds == 0
    assert power_law_of_points(X, y).error < 1e-13


def test_points_without_errors_are_one_seed():
    y = noisy(1)[:, 0]
    assert power_law_of_points(X, y) == pytest.approx(power_law(X, y)._replace(seeds=0), rel=0, nan_ok=True)


# ---------------------------------------------------------------------- what is missing


def test_empty_columns_and_points_change_nothing():
    y = noisy(4)
    padded = np.full((10, 6), NAN)
    padded[np.ix_([0, 1, 3, 4, 5, 6, 7, 9], [0, 2, 3, 5])] = y
    padded[2, 0] = 1e6  # one seed alone
    x = np.insert(X, [2, 7], [5.0, 800.0])
    assert power_law(x, padded) == power_law(X, y)


def test_missing_seeds():
    y = noisy(6)
    y[0, 1] = y[5, 2] = y[6, 2] = NAN
    law = power_law(X, y)
    expected = stats.linregress(np.log(X), np.nanmean(np.log(y), axis=1))
    assert law.slope == pytest.approx(expected.slope, rel=1e-12)
    assert np.isfinite(law.error)


def test_an_x_may_stand_twice():
    x, y = np.append(X, X[:2]), noisy(3)
    law = power_law(x, np.concatenate([y, 1.1 * y[:2]]))
    expected = stats.linregress(np.log(x), np.log(np.concatenate([y, 1.1 * y[:2]])).mean(axis=1))
    assert law.slope == pytest.approx(expected.slope, rel=1e-12)


def test_a_prefactor_beyond_float64_is_infinite():
    x = np.array([1e-200, 1e-199, 1e-198])
    law = power_law(x, np.array([1e-10, 1e-13, 1e-16]))
    assert law.slope == pytest.approx(-3, rel=1e-12)
    assert law.prefactor == 0 or np.isfinite(law.prefactor)
    assert power_law(x, np.array([1e-10, 1e-7, 1e-4])).prefactor == np.inf


# ---------------------------------------------------------------------- invariances


@given(seed=st.integers(0, 10**6), seeds=st.integers(1, 5), a=st.floats(1e-6, 1e6), b=st.floats(1e-6, 1e6))
def test_units_change_the_prefactor_alone(seed, seeds, a, b):
    y = noisy(seeds, seed)
    law, scaled = power_law(X, y, resamples=50), power_law(a * X, b * y, resamples=50)
    for name in ("slope", "error", "fit_error", "seed_error"):
        assert getattr(scaled, name) == pytest.approx(getattr(law, name), rel=1e-8, nan_ok=True)  # log x up to 20
    assert scaled.prefactor == pytest.approx(b * law.prefactor * a**-law.slope, rel=1e-9)


@given(seed=st.integers(0, 10**6), seeds=st.integers(1, 5))
def test_the_order_of_points_and_seeds_does_not_matter(seed, seeds):
    rng = np.random.default_rng(seed)
    y = noisy(seeds, seed)
    y[rng.random(y.shape) < 0.1] = NAN
    x = X.copy()
    x[1] = x[0]
    rows, columns = rng.permutation(len(X)), rng.permutation(seeds)
    law = tried(power_law, x, y, resamples=50)
    moved = tried(power_law, x[rows], y[rows][:, columns], resamples=50)
    assert repr(moved) == repr(law)  # to the bit, NaNs too


def test_more_seeds_have_smaller_errors():
    y = np.exp(0.2 * np.random.default_rng(0).normal(size=(8, 400))) / X[:, None]
    errors = [power_law(X, y[:, :s]).error for s in (4, 25, 400)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == pytest.approx(0.2 / np.sqrt(400 * ((np.log(X) - np.log(X).mean()) ** 2).sum()), rel=0.25)


def test_the_seed_of_the_bootstrap_is_used():
    y = noisy()
    assert power_law(X, y) == power_law(X, y)
    assert power_law(X, y, seed=1).error != power_law(X, y).error
    assert power_law(X, y, seed=1).error == pytest.approx(power_law(X, y).error, rel=0.15)


def test_it_is_printed_with_its_error():
    law = power_law(X, noisy())
    assert str(law) == f"{law.slope:.3f} ± {law.error:.3f}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_law(X[:2], X[:2]), "three points at least, got 2"),
        (lambda: power_law(X, np.full((8, 3), NAN)), "three points at least, got 0"),
        (lambda: power_law(X, np.where(np.eye(8) > 0, 1.0, NAN)), "got 0 with enough seeds"),
        (lambda: power_law([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), "All 3 points are at x = 2"),
        (lambda: power_law(X, np.append(X[:7], 0.0)), r"y\[7, 0\] is 0"),
        (lambda: power_law(X, np.append(X[:7], -1.0)), r"y\[7, 0\] is -1"),
        (lambda: power_law(np.append(X[:7], 0.0), X), r"x\[7\] is 0"),
        (lambda: power_law_of_points(X, X, X[:3]), "3 errors and 8 values"),
        (lambda: power_law_of_points(X, X, np.append(X[:7], 0.0)), r"errors\[7\] is 0"),
        (lambda: power_law_of_points(X, X, np.append(NAN, X[:7])), r"errors\[0\] is nan"),
        (lambda: power_law_of_points(X, np.append(X[:7], NAN), X), r"values\[7\] is nan"),
        (lambda: power_law_of_points(X, noisy(), noisy()), r"values have shape \(8, 5\)"),
        (lambda: power_law_of_points(X[:2], X[:2], X[:2]), "got 2"),
    ],
)
def test_refused_laws(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()
