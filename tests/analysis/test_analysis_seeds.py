"""Means over seeds, Student's t and the bootstrap, against numpy, scipy and closed forms."""

import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lazy_lightning.analysis import geometric_mean, mean_and_error, resampled_means, with_error
from lazy_lightning.analysis.scan_data import checked_scan
from lazy_lightning.analysis.seeds import covariance_of_means, error_over_resamples
from lazy_lightning.analysis.student import normal_coverage, student_quantile, widening
from lazy_lightning.errors import AnalysisError

NAN = np.nan


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def holes(values, share=0.3, seed=1):
    """NaN at random, but for two seeds in each row."""
    values = values.copy()
    values[:, 2:][np.random.default_rng(seed).random(values[:, 2:].shape) < share] = NAN
    return values


# ---------------------------------------------------------------------- Student


@pytest.mark.parametrize("dof", [1, 1.5, 2, 3, 4.7, 10, 60, 500, 1e7])
@pytest.mark.parametrize("coverage", [0.3, 0.6827, 0.9545, 0.9973, 0.99999])
def test_quantiles_are_those_of_scipy(dof, coverage):
    expected = stats.t.ppf((1 + coverage) / 2, dof)
    assert student_quantile(dof, coverage) == pytest.approx(expected, rel=1e-9)


def test_a_quantile_is_finite_where_the_coverage_rounds_to_one():
    assert 8 < student_quantile(1e6, normal_coverage(9.0)) < 9


def test_coverage_and_widening():
    assert normal_coverage(2) == pytest.approx(stats.norm.cdf(2) - stats.norm.cdf(-2), rel=1e-14)
    assert widening(3) == pytest.approx(stats.t.ppf(stats.norm.cdf(2), 3) / 2, rel=1e-12)
    assert widening(np.inf) == pytest.approx(1.0, rel=1e-12)


# ---------------------------------------------------------------------- means


def test_means_and_errors_are_those_of_numpy():
    y = draw(6, 5)
    mean, error = mean_and_error(y)
    assert_close(mean, y.mean(axis=1))
    assert_close(error, widening(4) * stats.sem(y, axis=1))
    assert_close(geometric_mean(np.exp(y)), stats.gmean(np.exp(y), axis=1))


def test_missing_seeds_are_left_out():
    y = holes(draw(6, 5))
    mean, error = mean_and_error(y)
    assert_close(mean, np.nanmean(y, axis=1))
    factors = np.array([widening(n - 1) for n in np.isfinite(y).sum(axis=1)])
    assert_close(error, factors * np.asarray(stats.sem(y, axis=1, nan_policy="omit")))
    mean, error = mean_and_error([[1.0, NAN, 3.0], [NAN, NAN, 5.0], [NAN, NAN, NAN]])
    assert_close(mean, np.array([2.0, 5.0, NAN]))
    assert_close(error, np.array([widening(1), NAN, NAN]))
    assert_close(geometric_mean([[NAN, NAN], [2.0, 8.0]]), np.array([NAN, 4.0]))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_errors_of_a_mean_over_few_seeds_cover_in_95_percent(seeds):
    mean, error = mean_and_error(draw(20_000, seeds))
    assert (np.abs(mean) < 2 * error).mean() == pytest.approx(normal_coverage(2), abs=0.006)


def test_one_seed_may_be_a_vector():
    mean, error = mean_and_error([1.0, 2.0])
    assert_close(mean, np.array([1.0, 2.0]))
    assert np.isnan(error).all()


@given(value=st.floats(-1e6, 1e6), seeds=st.integers(2, 9))
def test_equal_seeds_have_no_error_at_all(value, seeds):
    mean, error = mean_and_error(np.full((2, seeds), value))
    assert (mean == value).all()
    assert (error == 0).all()


def test_covariances_of_means():
    one, other = draw(4, 6), draw(4, 6) + draw(4, 6, seed=1)
    expected = [np.cov(a, b)[0, 1] / 6 for a, b in zip(one, other, strict=True)]
    assert_close(covariance_of_means(one, other), np.array(expected))
    one[0, 0] = other[0, 1] = NAN  # 5 and 5 seeds, of which 4 are common
    expected[0] = np.cov(one[0, 2:], other[0, 2:])[0, 1] * 4 / 25
    one[1, :5] = NAN
    expected[1] = NAN
    assert_close(covariance_of_means(one, other), np.array(expected))


# ---------------------------------------------------------------------- bootstrap

RESAMPLES = 40_000
MONTE_CARLO = 6 * np.sqrt(2 / RESAMPLES)  # six standard deviations of a variance; kurtosis is below the normal one


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_resamples_have_the_unbiased_covariance_of_the_means(seeds):
    y = draw(3, seeds) + draw(1, seeds, seed=1)
    means = resampled_means(y, resamples=RESAMPLES, rng=np.random.default_rng(2))
    expected = np.cov(y) / seeds
    assert_close(np.cov(means.T), expected, rtol=MONTE_CARLO)
    assert_close(means.mean(axis=0), y.mean(axis=1), rtol=6 / np.sqrt(RESAMPLES), scale=np.sqrt(expected.max()))


def test_resamples_of_points_with_missing_seeds():
    y = holes(draw(5, 7))
    means = resampled_means(y, resamples=RESAMPLES, rng=np.random.default_rng(2))
    expected = covariance_of_means(y, y)
    for variance, wanted in zip(means.var(axis=0), expected, strict=True):
        assert variance == pytest.approx(wanted, rel=MONTE_CARLO)


def test_errors_over_resamples_know_infinities():
    numbers = draw(RESAMPLES) * 3 + 1
    assert error_over_resamples(numbers, np.inf) == pytest.approx(3, rel=0.05)
    assert error_over_resamples(numbers, 4) == pytest.approx(3 * widening(4), rel=0.05)
    numbers = np.sort(numbers)
    numbers[-RESAMPLES // 7 :] = np.inf  # 14 %
    assert error_over_resamples(numbers, np.inf) == pytest.approx(3, rel=0.05)
    numbers[-RESAMPLES // 5 :] = np.inf
    assert error_over_resamples(numbers, np.inf) == np.inf
    assert error_over_resamples(np.full(100, np.inf), np.inf) == np.inf


# ---------------------------------------------------------------------- sweeps


def test_sweeps_come_in_one_order():
    x, y = np.array([3.0, 1.0, 2.0]), holes(draw(3, 6), 0.5)
    sweep = checked_scan(x, y, positive=False)
    assert_close(sweep.x, np.array([1.0, 2.0, 3.0]))
    rows, columns = [2, 0, 1], [5, 3, 1, 0, 2, 4]
    again = checked_scan(x[rows], y[rows][:, columns], positive=False)
    assert_close(again.y, sweep.y, rtol=0)
    assert sorted(map(str, sweep.y.T)) == sorted(map(str, y[[1, 2, 0]].T))  # whole columns have moved


def test_what_is_not_there_is_left_out():
    y = np.array([[1.0, 2.0, NAN], [NAN, NAN, NAN], [NAN, 3.0, NAN], [4.0, 5.0, NAN]])
    sweep = checked_scan([1.0, 2.0, 3.0, 4.0], y, positive=True)
    assert sweep.seeds == 2
    assert sweep.x.tolist() == [1.0, 4.0]  # at 3 there is one seed and no error
    assert checked_scan([1.0, 2.0, 3.0, 4.0], y[:, 1], positive=True).x.tolist() == [1.0, 3.0, 4.0]
    assert checked_scan([1.0, 2.0], np.full((2, 3), NAN), positive=True).x.size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_and_error(np.zeros((2, 2, 2))), r"\(2, 2, 2\)"),
        (lambda: mean_and_error(np.zeros((2, 0))), r"\(2, 0\)"),
        (lambda: mean_and_error([[1.0, 2.0], [3.0, np.inf]]), r"y\[1, 1\] is inf"),
        (lambda: geometric_mean([[1.0, 2.0], [0.0, 1.0]]), r"y\[1, 0\] is 0, expected a positive"),
        (lambda: checked_scan([1.0, -2.0], [1.0, 1.0], positive=True), r"x\[1\] is -2"),
        (lambda: checked_scan([1.0, NAN], [1.0, 1.0], positive=True), r"x\[1\] is nan"),
        (lambda: checked_scan([[1.0, 2.0]], [1.0, 1.0], positive=True), r"x has shape \(1, 2\)"),
        (lambda: checked_scan([1.0, 2.0], [1.0, 1.0, 1.0], positive=True), "2 points and y 3 rows"),
        (lambda: checked_scan([1.0, 2.0, 2.0], [1.0, 1.0, 1.0], positive=True), "x = 2 occurs twice"),
        (lambda: resampled_means(np.ones((2, 2)), resamples=10, rng=np.random.default_rng()), "resamples is 10"),
    ],
)
def test_refused_measurements(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()


# ---------------------------------------------------------------------- printing


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-1.00392, 0.0104, "-1.004 ± 0.010"),
        (12.3456, 1.23, "12.3 ± 1.2"),
        (1234.5, 230.0, "1234 ± 230"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.5, np.inf, "0.5 ± inf"),
        (np.nan, 0.1, "nan ± 0.1"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (3.14159e8, 2e6, "(3.142 ± 0.020)e+08"),
        (-2e-9, 3e-8, "(-0.2 ± 3.0)e-08"),
        (1.0, 1e-300, "1.000000 ± 1e-300"),
    ],
)
def test_numbers_are_shown_to_their_error(value, error, shown):
    assert with_error(value, error) == shown
