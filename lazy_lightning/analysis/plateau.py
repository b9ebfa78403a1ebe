"""The range of a sweep in which a quantity is constant, for example the lazy plateau of the test error."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.scan_data import checked_scan
from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.analysis.student import normal_coverage, student_quantile, widening
from lazy_lightning.errors import AnalysisError

FEWEST = 3
"""Smallest number of points of a plateau."""
_ROUNDING = 1e-12


class Plateau(NamedTuple):
    """The range at the large end of x in which y is constant."""

    value: float
    """Mean of y over seeds and points of the range."""
    error: float
    """Standard error over seeds; two of it cover in 95 %."""
    start: float
    """Smallest x of the range."""
    end: float
    """Largest x of the range."""
    decades: float
    """Length of the range, log10(end/start)."""
    points: int
    """Number of points in the range."""
    seeds: int
    """Number of seeds that have every point of the range."""

    def __str__(self) -> str:
        return f"{with_error(self.value, self.error)} over {self.decades:.2g} decades"


def plateau(x: ArrayLike, y: ArrayLike, *, sigmas: float = 2.0) -> Plateau:
    """Returns the longest range up to the largest x in which y is constant within the errors over seeds.

    A seed has the same initial weights at every x, so its deviations at different x are correlated. Therefore changes
    are compared with the errors of paired differences: the mean over the range is subtracted from each seed, and the
    remainder minus its mean over seeds is the noise, pooled over the n points (with few seeds, a variance for each
    point would be too uncertain). A range is constant if the deviations of each point's mean from the mean of the
    range, and of the line through the points in log x at the ends of the range, are smaller than one of two limits:

    * ``sigmas`` standard errors of paired differences, with Student's t for (n - 1)(s - 1) degrees of freedom and for
      all n + 1 deviations together, so that a true plateau is shortened equally often for any length;
    * the standard error of the mean over the range, unpaired. This is needed for lazy training: as alpha grows, all
      seeds approach their limits as 1/alpha, changes and paired errors decrease in proportion, and a change of one part
      in a million is still significant. A change smaller than the error of the value itself is neglected.

    Seeds that lack a point of a range are left out of it. The more seeds there are, the smaller the changes that this
    test detects.

    Args:
        x: points (k,), positive.
        y: measurements (k, s) of any sign, NaN where a seed is missing.
        sigmas: number of standard errors in the first limit.

    Raises:
        AnalysisError: no three points at the large end agree, there are fewer than two seeds, or an x occurs twice.

    >>> x = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    >>> seeds = np.array([-0.01, 0.0, 0.004, 0.01])
    >>> print(plateau(x, 0.2 + 0.3 / x[:, None] + seeds))
    0.2021 ± 0.0069 over 2 decades
    """
    if not (math.isfinite(sigmas) and sigmas > 0):
        raise AnalysisError(f"sigmas is {sigmas}, expected a positive number: 2 is usual.")
    sweep = checked_scan(x, y, positive=False)
    if sweep.seeds < 2:
        raise AnalysisError(f"A plateau needs the spread over seeds, of two at least, got {sweep.seeds}.")
    for start in range(len(sweep.x) - FEWEST + 1):
        stretch = sweep.y[start:]
        stretch = stretch[:, ~np.isnan(stretch).any(axis=0)]
        if stretch.shape[1] >= 2 and _is_constant(np.log(sweep.x[start:]), stretch, sigmas):
            return _found(sweep.x[start:], stretch)
    raise AnalysisError(
        f"There is no plateau: of {len(sweep.x)} points with enough seeds, no {FEWEST} at the large end of x agree "
        f"within {sigmas:g} errors; extend the sweep to larger x."
    )


def _is_constant(u: Floats, stretch: Floats, sigmas: float) -> bool:
    """Returns whether numbers (n, s) are constant along n up to noise; see :func:`plateau`."""
    n, s = stretch.shape
    paired = stretch - stretch.mean(axis=0)
    changes = paired.mean(axis=1)
    dof = (n - 1) * (s - 1)
    noise = math.sqrt(((paired - changes[:, None]) ** 2).sum() / dof)
    away = u - u.mean()
    line = away * np.abs(away).max() / (away**2).sum()  # the value of the fitted line at the farther end
    all_changes = np.append(changes, line @ changes)
    sizes = np.append(np.full(n, math.sqrt(1 - 1 / n)), math.sqrt(line @ line))
    quantile = student_quantile(dof, normal_coverage(sigmas) ** (1 / (n + 1)))
    negligible = _error_of_mean(stretch) + _ROUNDING * np.abs(stretch).max()
    limits = np.maximum(quantile * noise * sizes / math.sqrt(s), negligible)
    return bool((np.abs(all_changes) <= limits).all())


def _error_of_mean(stretch: Floats) -> float:
    """Returns the standard error over seeds of the mean over points, not widened."""
    return float(stretch.mean(axis=0).std(ddof=1)) / math.sqrt(stretch.shape[1])


def _found(x: Floats, stretch: Floats) -> Plateau:
    start, end, seeds = float(x[0]), float(x[-1]), stretch.shape[1]
    error = widening(seeds - 1) * _error_of_mean(stretch)
    return Plateau(float(stretch.mean()), error, start, end, math.log10(end / start), len(x), seeds)
