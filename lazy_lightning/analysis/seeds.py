"""Means over seeds, their errors, and the bootstrap over seeds.

Measurements are (k, s): k points of a sweep, s seeds, NaN where a seed is missing. A seed has the same initial weights
at every point, so a column is one draw, and the bootstrap resamples columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.analysis.student import normal_coverage, widening
from lazy_lightning.errors import AnalysisError

Floats = NDArray[np.float64]

_FEWEST_RESAMPLES = 50
"""With fewer resamples the ends of the central 68 % are too uncertain."""


def seed_columns(y: ArrayLike, *, positive: bool = False) -> Floats:
    """Returns measurements as float64 (k, s), where (k,) is one seed.

    Raises:
        AnalysisError: the number of axes is wrong, a value is infinite, or with ``positive`` one is not positive.
    """
    values = np.asarray(y, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] == 0:
        raise AnalysisError(f"y has shape {values.shape}, expected (k, s): a row for each point, one column a seed.")
    wrong = np.isinf(values) | (values <= 0 if positive else False)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        expected = "a positive number" if positive else "a finite number"
        raise AnalysisError(
            f"y[{row}, {column}] is {values[row, column]:g}, expected {expected}: leave the point out, or use NaN."
        )
    return values


def seed_means(values: Floats) -> Floats:
    """Returns the means (k,) over the seeds that are not NaN; NaN if there is none."""
    present = ~np.isnan(values)
    # The first seed is subtracted before the sum, so that the mean of equal numbers is exactly this number.
    first = np.take_along_axis(values, present.argmax(axis=1)[:, None], axis=1)
    total = np.where(present, values - first, 0.0).sum(axis=1)
    count = present.sum(axis=1)
    return np.where(count > 0, first[:, 0] + total / np.maximum(count, 1), np.nan)


def geometric_mean(y: ArrayLike) -> Floats:
    """Returns exp(mean over seeds of log y), (k,); NaN for a point without seeds.

    Raises:
        AnalysisError: a value is not a positive number, or y is not (k, s).

    >>> geometric_mean([[1.0, 4.0], [3.0, np.nan]])
    array([2., 3.])
    """
    means: Floats = np.exp(seed_means(np.log(seed_columns(y, positive=True))))
    return means


def mean_and_error(y: ArrayLike) -> tuple[Floats, Floats]:
    """Returns mean and standard error over seeds, (k,) each.

    The error is (sum (y - mean)^2/(n (n - 1)))^(1/2) over the n seeds of a point, widened by Student's t for n - 1
    degrees of freedom, so that two of it cover in 95 % (:func:`~lazy_lightning.analysis.student.widening`): 6.98 times
    as large for two seeds, 2.26 times for three, 1.25 times for six. It is NaN for a point with fewer than two seeds.

    Raises:
        AnalysisError: a value is infinite, or y is not (k, s).

    >>> means, errors = mean_and_error([[1.0, 3.0], [5.0, np.nan]])
    >>> means, errors.round(2)
    (array([2., 5.]), array([6.98,  nan]))
    """
    values = seed_columns(y)
    means = seed_means(values)
    factors = np.array([widening(float(count) - 1) for count in (~np.isnan(values)).sum(axis=1)])
    return means, factors * np.sqrt(covariance_of_means(values, values))


def covariance_of_means(one: Floats, other: Floats) -> Floats:
    """Returns the covariances (k,) of the seed means of the rows of two (k, s), estimated from their common seeds.

    With n and m seeds of which c are common, it is c/(n m) times the unbiased covariance over these, NaN if c < 2.
    """
    common = ~np.isnan(one) & ~np.isnan(other)
    c = common.sum(axis=1)
    deviations = [z - seed_means(np.where(common, z, np.nan))[:, None] for z in (one, other)]
    products = np.where(common, deviations[0] * deviations[1], 0.0).sum(axis=1)
    seeds_of_each = (~np.isnan(one)).sum(axis=1) * (~np.isnan(other)).sum(axis=1)
    covariances: Floats = np.where(c > 1, products / np.maximum(c - 1, 1) * c / np.maximum(seeds_of_each, 1), np.nan)
    return covariances


def resampled_means(values: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Returns resampled means over seeds, (resamples, k), by a Bayesian bootstrap over columns.

    Each resample has random weights of the seeds, uniform over all weights with sum 1 (D. B. Rubin, *The Bayesian
    Bootstrap*, doi:10.1214/aos/1176345338), so that no resample lacks a point with few seeds. The variance of such a
    mean of n seeds is (n - 1)/(n + 1) times that of a mean, so its deviations are multiplied by the root of the
    inverse, and the variance over resamples is exactly the unbiased estimate.

    Args:
        values: measurements (k, s) with at least two seeds in each row.
        resamples: number of resamples.
        rng: generator of the weights.

    Raises:
        AnalysisError: there are fewer than 50 resamples.
    """
    if resamples < _FEWEST_RESAMPLES:
        raise AnalysisError(f"resamples is {resamples}, expected {_FEWEST_RESAMPLES} at least: a thousand is usual.")
    present = ~np.isnan(values)
    n = present.sum(axis=1)
    means = seed_means(values)
    weights = rng.standard_exponential((resamples, values.shape[1]))
    deviations = weights @ np.where(present, values - means[:, None], 0.0).T / (weights @ present.T)
    stretched: Floats = means + deviations * np.sqrt((n + 1) / (n - 1))
    return stretched


def error_over_resamples(statistics: Floats, dof: float) -> float:
    """Returns half the width of the central 68 % of resampled statistics (resamples,), widened for ``dof``.

    For normal numbers this is their standard deviation. Numbers may be infinite, if the statistic of a resample lies
    beyond the data; the error is infinite if these are more than 16 % on one side.
    """
    ranked = np.sort(statistics)
    outside = (1 - normal_coverage(1.0)) / 2
    low, high = (ranked[round(share * (len(ranked) - 1))] for share in (outside, 1 - outside))
    return widening(dof) * float(high - low) / 2 if np.isfinite([low, high]).all() else float("inf")
