"""Sampling errors, crossed means and paired tests, against scipy, closed forms and simulations of known truth."""

import numpy as np
import pytest
from scipy import stats
from simulations import coverage

from lazy_lightning.analysis import binomial_error, crossed_mean, ensemble_statistics, misclassified, paired_test
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError


def table(rng, r, c, rows=1.0, columns=1.0, rest=1.0, mean=0.0):
    """Numbers of the model mean + a_r + b_c + e_rc with these standard deviations."""
    return mean + rows * rng.normal(size=(r, 1)) + columns * rng.normal(size=c) + rest * rng.normal(size=(r, c))


# ---------------------------------------------------------------------- binomial


@pytest.mark.parametrize(("share", "samples"), [(0.05, 500), (0.5, 100), (0.0, 500), (0.01, 200), (0.9, 60)])
def test_two_binomial_errors_cover_the_share(share, samples):
    """The exact coverage of the interval around (k + 2)/(m + 4), summed over all counts k."""
    counts = np.arange(samples + 1)
    inside = [
        abs((k + 2) / (samples + 4) - share) <= 2 * binomial_error(k / samples, samples) * (1 + 1e-12) for k in counts
    ]
    assert stats.binom.pmf(counts, samples, share)[inside].sum() > 0.93


def test_the_binomial_error_of_many_samples():
    assert binomial_error(0.2, 1_000_000) == pytest.approx(np.sqrt(0.16 / 1_000_000), rel=1e-4)
    assert np.isnan(binomial_error(float("nan"), 10))
    assert 0 < binomial_error(0.0, 500) < 0.004


# ---------------------------------------------------------------------- crossed tables


def test_one_source_of_error_is_the_t_test_of_scipy():
    x = np.random.default_rng(0).normal(0.4, 1.0, size=7)
    for values in (x, x[:, None], np.repeat(x[:, None], 9, axis=1), np.repeat(x[None], 9, axis=0)):
        found = crossed_mean(values)
        expected = stats.ttest_1samp(x, 0.0)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
        assert found.error == pytest.approx(widening(6) * stats.sem(x), rel=1e-10)
        assert found.dof == pytest.approx(6)


def test_the_mean_squares_are_those_of_an_analysis_of_variance():
    """Computed member by member, by other formulas: total = rows + columns + remainder."""
    x = table(np.random.default_rng(1), 5, 8, rows=3, columns=2)
    r, c = x.shape
    rows = sum(c * (x[i].mean() - x.mean()) ** 2 for i in range(r)) / (r - 1)
    columns = sum(r * (x[:, j].mean() - x.mean()) ** 2 for j in range(c)) / (c - 1)
    total = ((x - x.mean()) ** 2).sum()
    rest = (total - (r - 1) * rows - (c - 1) * columns) / ((r - 1) * (c - 1))
    found = crossed_mean(x)
    variance = (rows + columns - rest) / (r * c)
    dof = (r * c * variance) ** 2 / (rows**2 / (r - 1) + columns**2 / (c - 1) + rest**2 / ((r - 1) * (c - 1)))
    assert found.dof == pytest.approx(dof, rel=1e-10)
    assert found.error == pytest.approx(widening(dof) * np.sqrt(variance), rel=1e-10)
    assert found.row_error == pytest.approx(widening(4) * stats.sem(x.mean(axis=1)), rel=1e-10)
    assert found.column_error == pytest.approx(widening(7) * stats.sem(x.mean(axis=0)), rel=1e-10)


@pytest.mark.parametrize(
    ("rows", "columns", "rest", "least"),
    [(1.0, 1.0, 1.0, 0.93), (0.3, 3.0, 1.0, 0.93), (3.0, 0.3, 1.0, 0.93), (0.0, 0.0, 1.0, 0.95)],
)
def test_two_errors_of_a_crossed_mean_cover_the_truth(rows, columns, rest, least):
    def estimate(rng):
        found = crossed_mean(table(rng, 4, 30, rows, columns, rest, mean=2.0))
        return found.mean, found.error

    assert coverage(estimate, 2.0, simulations=2000).share > least


def test_means_without_an_error():
    single = crossed_mean([[3.0]])
    assert single.mean == 3.0
    assert np.isnan([single.error, single.row_error, single.column_error, single.dof, single.p_value]).all()
    assert crossed_mean(np.zeros((3, 4))).p_value == 1.0
    assert crossed_mean(np.ones((3, 4))).p_value == 0.0


# ---------------------------------------------------------------------- paired


def wrong(rng, seeds, samples, shift, between_seeds=0.2):
    """Two sets of members with a common difficulty of the samples, the second with a higher threshold."""
    hard = rng.normal(size=samples) * 1.5
    scores = [hard + rng.normal(size=(seeds, samples)) + between_seeds * rng.normal(size=(seeds, 1)) for _ in range(2)]
    return scores[0] > 2.0, scores[1] > 2.0 + shift


def test_of_equal_members_one_in_twenty_seems_different():
    rng = np.random.default_rng(3)
    p = np.array([paired_test(*wrong(rng, 4, 200, 0.0)).p_value for _ in range(1500)])
    assert 0.01 < (p < 0.05).mean() < 0.065


def test_a_paired_test_finds_what_two_separate_errors_do_not():
    rng = np.random.default_rng(4)
    one, other = wrong(rng, 8, 500, 0.3, between_seeds=0.0)
    found = paired_test(one, other)
    apart = np.hypot(crossed_mean(one).error, crossed_mean(other).error)
    assert found.mean == pytest.approx(one.mean() - other.mean())
    assert found.p_value < 0.001 < 0.01 < 2 * stats.norm.sf(found.mean / apart)
    assert found.error < 0.6 * apart


def test_one_seed_is_mcnemar_without_correction():
    rng = np.random.default_rng(5)
    one, other = wrong(rng, 1, 3000, 0.03, between_seeds=0.0)
    more, less = (one & ~other).sum(), (other & ~one).sum()
    found = paired_test(one, other)
    z = (more - less) / np.sqrt(more + less - (more - less) ** 2 / 3000)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.02)


def test_misclassified_samples_are_those_of_the_ensemble_statistics():
    rng = np.random.default_rng(6)
    y, classes = np.sign(rng.normal(size=40)), rng.integers(0, 3, size=40)
    for outputs, labels in ((rng.normal(size=(5, 40)), y), (rng.normal(size=(5, 40, 3)), classes)):
        assert misclassified(outputs, labels).mean() == pytest.approx(ensemble_statistics(outputs, labels).mean_error)
    assert misclassified([[0.0, 1.0]], [1.0, 1.0]).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binomial_error(1.5, 10), "share is 1.5"),
        (lambda: binomial_error(0.5, 0), "samples is 0"),
        (lambda: crossed_mean(np.zeros((2, 0))), r"\(2, 0\)"),
        (lambda: crossed_mean([[1.0, np.nan]]), r"values\[0, 1\] is nan"),
        (lambda: paired_test([[1.0, 2.0]], [1.0, 2.0]), r"\(1, 2\) and \(2,\)"),
        (lambda: misclassified([[1.0, 2.0]], [0.3, 0.7]), "regression targets"),
    ],
)
def test_refused_numbers(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()
