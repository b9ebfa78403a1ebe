"""Fits of power laws, with errors of the exponent from the seeds and from the scatter of the points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.line import Line, combined_errors
from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.scan_data import checked_scan
from lazy_lightning.analysis.seeds import Floats, resampled_means, seed_means
from lazy_lightning.errors import AnalysisError


class PowerLaw(NamedTuple):
    """The fitted power law y = prefactor x^slope with its errors."""

    slope: float
    """The exponent."""
    error: float
    """Standard error of the slope from the seeds and from additional scatter of the points; two cover in 95 %."""
    prefactor: float
    """The value at x = 1."""
    prefactor_error: float
    """The prefactor times the standard error of its logarithm."""
    fit_error: float
    """Standard error of the slope only from the scatter of the points around the line, not widened."""
    points: int
    """Number of points of the fit."""
    seeds: int
    """Number of seeds; 0 if errors instead of seeds were given."""
    seed_error: float
    """Standard error of the slope only from the seeds or the given errors, not widened; NaN if there are none."""

    def at(self, x: ArrayLike) -> Floats:
        """Returns the power law at x, prefactor x^slope."""
        return self.prefactor * np.asarray(x, dtype=np.float64) ** self.slope

    def __str__(self) -> str:
        return with_error(self.slope, self.error)


def power_law(x: ArrayLike, y: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> PowerLaw:
    """Fits a power law to the geometric means over seeds by least squares in both logarithms.

    The variance of the slope is the sum of two contributions. The first is that over seeds, from a bootstrap of whole
    columns. The second is from residuals beyond those that the seeds explain, if there are any: the sum of squared
    residuals minus that of the resamples' deviations, divided by k - 2 and sum (log x - mean)^2. Thus independent noise
    of the points is not counted twice, although it contributes to both the seeds and the scatter; a relation that is
    not a power law has a large error even if its seeds agree; and different slopes of the seeds contribute even if the
    means lie on a line. The sum is widened for few seeds and points (:mod:`~lazy_lightning.analysis.student`). With one
    seed only the scatter contributes.

    Points with a single seed are left out if other points have more seeds.

    Args:
        x: points (k,).
        y: measurements (k, s), NaN where a seed is missing; (k,) is one seed.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        AnalysisError: there are fewer than three points, all points have the same x, or values are not positive.

    >>> x = np.array([1.0, 10.0, 100.0, 1000.0])
    >>> print(power_law(x, np.array([2.1, 0.2, 0.019, 0.0021])))
    -1.002 ± 0.025
    """
    sweep = checked_scan(x, y, positive=True, distinct=False)
    u, v = np.log(sweep.x), np.log(sweep.y)
    _check_points(u)
    line, means = Line.through(u), seed_means(v)
    squares = (line.residuals(means) ** 2).sum()
    over_seeds, explained = np.zeros(2), 0.0
    if sweep.seeds > 1:
        moved = resampled_means(v, resamples=resamples, rng=np.random.default_rng(seed)) - means
        over_seeds = (line.fit(moved) ** 2).mean(axis=0)
        explained = (line.residuals(moved) ** 2).sum(axis=1).mean()
    dof = len(u) - 2
    scatter = line.variances(max(0.0, squares - explained) / dof)
    errors = combined_errors(over_seeds, max(sweep.seeds - 1, 1), scatter, dof)
    fit_error = np.sqrt(line.variances(squares / dof)[0])
    seed_error = np.sqrt(over_seeds[0]) if sweep.seeds > 1 else np.nan
    return _result(line.fit(means), errors, fit_error, seed_error, len(u), sweep.seeds)


def power_law_of_points(x: ArrayLike, values: ArrayLike, errors: ArrayLike | None = None) -> PowerLaw:
    """Fits a power law to single numbers with or without errors, for example to alpha* of several widths.

    With errors, the least squares are weighted by (value/error)^2. If chi^2 exceeds k - 2, the points scatter more than
    their errors explain, and the variance of the slope is multiplied by chi^2/(k - 2); the additional part is widened
    for few points. Without errors only the scatter contributes.

    Args:
        x: points (k,).
        values: values (k,).
        errors: independent errors (k,) of the values.

    Raises:
        AnalysisError: there are fewer than three points, all points have the same x, or values or errors are not
            positive.

    >>> print(power_law_of_points([30.0, 100.0, 300.0], [0.18, 0.1, 0.058], [0.01, 0.005, 0.004]))
    -0.491 ± 0.038
    """
    heights = _single_numbers("values", values)
    if errors is None:
        return power_law(x, heights)._replace(seeds=0)
    given = _single_numbers("errors", errors)
    if np.shape(given) != np.shape(heights):
        raise AnalysisError(f"There are {len(given)} errors and {len(heights)} values, expected one error for each.")
    checked_scan(x, heights, positive=True, distinct=False)
    u, v, relative = np.log(np.asarray(x, dtype=np.float64)), np.log(heights), given / heights
    _check_points(u)
    line = Line.through(u, relative**-2.0)
    reduced = ((line.residuals(v) / relative) ** 2).sum() / (len(u) - 2)
    variances = line.variances(relative**2)
    total = combined_errors(variances, np.inf, variances * max(0.0, reduced - 1), len(u) - 2)
    return _result(line.fit(v), total, np.sqrt(variances[0] * reduced), np.sqrt(variances[0]), len(u), 0)


def _single_numbers(name: str, given: ArrayLike) -> Floats:
    numbers = np.asarray(given, dtype=np.float64)
    if numbers.ndim != 1:
        raise AnalysisError(f"{name} have shape {numbers.shape}, expected (k,): one number for each point.")
    wrong = ~((numbers > 0) & np.isfinite(numbers))
    if wrong.any():
        where = int(wrong.argmax())
        raise AnalysisError(
            f"{name}[{where}] is {numbers[where]:g}, expected a positive number: leave the point out, or all errors."
        )
    return numbers


def _check_points(u: Floats) -> None:
    if len(u) < 3:
        raise AnalysisError(
            f"A power law needs three points at least, got {len(u)} with enough seeds: widen the sweep, or its range."
        )
    if u.max() == u.min():
        raise AnalysisError(f"All {len(u)} points are at x = {np.exp(u[0]):g}: a power law needs different x.")


def _result(fitted: Floats, errors: Floats, fit_error: float, seed_error: float, points: int, seeds: int) -> PowerLaw:
    with np.errstate(over="ignore"):  # the prefactor at x = 1, far from all points, may overflow to inf
        prefactor = float(np.exp(fitted[1]))
        prefactor_error = prefactor * float(errors[1]) if errors[1] > 0 else 0.0
    return PowerLaw(
        slope=float(fitted[0]),
        error=float(errors[0]),
        prefactor=prefactor,
        prefactor_error=prefactor_error,
        fit_error=float(fit_error),
        points=points,
        seeds=seeds,
        seed_error=float(seed_error),
    )
