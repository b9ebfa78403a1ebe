"""Means over seeds, their errors, and the bootstrap over seeds.

Measurements are (k, s): k points of a sweep, s seeds, NaN where a seed is missing. A seed starts from the same weights
at every point, so a column is one draw: what is resampled is columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.analysis.student import normal_coverage, widening
from lazy_lightning.errors import AnalysisError

Floats = NDArray[np.float64]

_FEWEST_RESAMPLES = 50
"""Under which the ends of the central 68 % are a matter of chance."""


def seed_columns(y: ArrayLike, *, positive: bool = False) -> Floats:
    """Measurements as (k, s) float64; (k,) is one seed.

    Raises:
        AnalysisError: another number of axes, an infinite value, or with ``positive`` one that is not above 0.
    """
    values = np.asarray(y, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] == 0:
        raise AnalysisError(f"y has shape {values.shape}, expected (k, s): a row for each point, one column a seed.")
    wrong = np.isinf(values) | (values <= 0 if positive else False)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        wanted = "a positive number" if positive else "a finite number"
        raise AnalysisError(
            f"y[{row}, {column}] is {values[row, column]:g}, expected {wanted}: leave the point out, or put NaN there."
        )
    return values


def seed_means(values: Floats) -> Floats:
    """The means (k,) over the seeds that are there; NaN where none is."""
    there = ~np.isnan(values)
    # The first seed is taken off before the sum, so that equal numbers have exactly their value as mean.
    first = np.take_along_axis(values, there.argmax(axis=1)[:, None], axis=1)
    total = np.where(there, values - first, 0.0).sum(axis=1)
    count = there.sum(axis=1)
    return np.where(count > 0, first[:, 0] + total / np.maximum(count, 1), np.nan)


def geometric_mean(y: ArrayLike) -> Floats:
    """exp(mean over seeds of log y), (k,); NaN where no seed is.

    Raises:
        AnalysisError: a value that is not a positive number, or y is not (k, s).

    >>> geometric_mean([[1.0, 4.0], [3.0, np.nan]])
    array([2., 3.])
    """
    means: Floats = np.exp(seed_means(np.log(seed_columns(y, positive=True))))
    return means


def mean_and_error(y: ArrayLike) -> tuple[Floats, Floats]:
    """Mean and standard error over seeds, (k,) each: (sum (y - mean)^2/(n (n - 1)))^(1/2) over the n seeds there.

    The error is not widened for few seeds. It is NaN where fewer than two seeds are.

    Raises:
        AnalysisError: an infinite value, or y is not (k, s).

    >>> mean_and_error([[1.0, 3.0], [5.0, np.nan]])
    (array([2., 5.]), array([ 1., nan]))
    """
    values = seed_columns(y)
    means = seed_means(values)
    return means, np.sqrt(covariance_of_means(values, values))


def covariance_of_means(one: Floats, other: Floats) -> Floats:
    """The covariances (k,) between the seed means of the rows of two (k, s), estimated from the seeds that both have.

    With n and m seeds of which c are common: c/(n m) times the unbiased covariance over these. NaN where c < 2.
    """
    common = ~np.isnan(one) & ~np.isnan(other)
    c = common.sum(axis=1)
    deviations = [z - seed_means(np.where(common, z, np.nan))[:, None] for z in (one, other)]
    products = np.where(common, deviations[0] * deviations[1], 0.0).sum(axis=1)
    seeds_of_each = (~np.isnan(one)).sum(axis=1) * (~np.isnan(other)).sum(axis=1)
    covariances: Floats = np.where(c > 1, products / np.maximum(c - 1, 1) * c / np.maximum(seeds_of_each, 1), np.nan)
    return covariances


def resampled_means(values: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Means over seeds as they could have come out, (resamples, k): a Bayesian bootstrap over columns.

    Each resample weighs the seeds at random, uniformly over all weights that sum to 1 (D. B. Rubin, *The Bayesian
    Bootstrap*, doi:10.1214/aos/1176345338): no resample loses a point that few seeds have reached. Such a mean of n
    seeds has (n - 1)/(n + 1) of the variance of a mean, so its deviations are stretched by the root of the inverse: the
    variance over resamples is exactly the unbiased estimate.

    Args:
        values: (k, s), at least two seeds in each row.
        resamples: how many.
        rng: where the weights come from.

    Raises:
        AnalysisError: fewer than 50 resamples.
    """
    if resamples < _FEWEST_RESAMPLES:
        raise AnalysisError(f"resamples is {resamples}, expected {_FEWEST_RESAMPLES} at least: a thousand is usual.")
    there = ~np.isnan(values)
    n = there.sum(axis=1)
    means = seed_means(values)
    weights = rng.standard_exponential((resamples, values.shape[1]))
    deviations = weights @ np.where(there, values - means[:, None], 0.0).T / (weights @ there.T)
    stretched: Floats = means + deviations * np.sqrt((n + 1) / (n - 1))
    return stretched


def error_over_resamples(statistics: Floats, dof: float) -> float:
    """Half the width of the central 68 % of resampled statistics (resamples,), widened for ``dof``.

    For normal numbers this is their standard deviation. Numbers may be infinite (a resample in which what is looked for
    lies beyond the data): then the error is infinite if these are more than 16 % on a side.
    """
    ranked = np.sort(statistics)
    outside = (1 - normal_coverage(1.0)) / 2
    low, high = (ranked[round(share * (len(ranked) - 1))] for share in (outside, 1 - outside))
    return widening(dof) * float(high - low) / 2 if np.isfinite([low, high]).all() else float("inf")
