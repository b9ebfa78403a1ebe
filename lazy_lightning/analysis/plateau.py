"""Over which stretch of a sweep a quantity does not change: the lazy plateau of the test error, for example."""

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
"""Points of a plateau, at least."""
_ROUNDING = 1e-12


class Plateau(NamedTuple):
    """The stretch at the large end of x over which y is constant."""

    value: float
    """The mean of y over seeds and points of the stretch."""
    error: float
    """Over seeds. Two of it cover in 95 %."""
    start: float
    end: float
    decades: float
    """log10(end/start)."""
    points: int
    seeds: int
    """Those that have reached every point of the stretch."""

    def __str__(self) -> str:
        return f"{with_error(self.value, self.error)} over {self.decades:.2g} decades"


def plateau(x: ArrayLike, y: ArrayLike, *, sigmas: float = 2.0) -> Plateau:
    """The longest stretch up to the largest x over which y is constant within the seeds' errors.

    A seed starts from the same weights at every x, and lies high or low at all of them. So changes are judged by paired
    differences: from each seed its mean over the stretch is taken off, and what is left, less its mean over seeds, is
    the noise, pooled over the n points (with few seeds, a variance for each point would be worth nothing). A stretch is
    constant if

    * each point's mean differs from the stretch's mean, and the line through the points in log x does so at the
      stretch's ends, by less than ``sigmas`` standard errors of paired differences: Student's for (n - 1)(s - 1)
      degrees of freedom, and for all n + 1 at once, so a true plateau is cut as often whatever its length;
    * or by less than the standard error of the stretch's mean over seeds, unpaired. Lazy training needs this: as alpha
      grows all seeds approach their limits as 1/alpha, changes and paired errors fall alike, and a change of one part
      in a million is still significant. Smaller than the error of the value itself, it is none.

    Seeds that lack a point of a stretch are left out of it. That nothing is found to change says the more, the more
    seeds there are.

    Args:
        x: (k,) positive.
        y: (k, s) of any sign, NaN where a seed is missing.
        sigmas: see above.

    Raises:
        AnalysisError: no three points at the large end agree, fewer than two seeds, or an x that stands twice.

    >>> x = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    >>> seeds = np.array([-0.01, 0.0, 0.004, 0.01])
    >>> print(plateau(x, 0.2 + 0.3 / x[:, None] + seeds))
    0.2021 ± 0.0069 over 2 decades
    """
    if not (math.isfinite(sigmas) and sigmas > 0):
        raise AnalysisError(f"sigmas is {sigmas}, expected a positive number: 2 is usual.")
    sweep = checked_scan(x, y, positive=False)
    if sweep.seeds < 2:
        raise AnalysisError(f"A plateau is judged by the spread over seeds and needs two at least, got {sweep.seeds}.")
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
    """Whether (n, s) numbers differ along n by nothing but noise; see :func:`plateau`."""
    n, s = stretch.shape
    paired = stretch - stretch.mean(axis=0)
    changes = paired.mean(axis=1)
    dof = (n - 1) * (s - 1)
    noise = math.sqrt(((paired - changes[:, None]) ** 2).sum() / dof)
    away = u - u.mean()
    line = away * np.abs(away).max() / (away**2).sum()  # the fitted line's height at the farther end
    all_changes = np.append(changes, line @ changes)
    sizes = np.append(np.full(n, math.sqrt(1 - 1 / n)), math.sqrt(line @ line))
    quantile = student_quantile(dof, normal_coverage(sigmas) ** (1 / (n + 1)))
    negligible = _error_of_mean(stretch) + _ROUNDING * np.abs(stretch).max()
    limits = np.maximum(quantile * noise * sizes / math.sqrt(s), negligible)
    return bool((np.abs(all_changes) <= limits).all())


def _error_of_mean(stretch: Floats) -> float:
    """Standard error over seeds of the mean over points; not widened."""
    return float(stretch.mean(axis=0).std(ddof=1)) / math.sqrt(stretch.shape[1])


def _found(x: Floats, stretch: Floats) -> Plateau:
    start, end, seeds = float(x[0]), float(x[-1]), stretch.shape[1]
    error = widening(seeds - 1) * _error_of_mean(stretch)
    return Plateau(float(stretch.mean()), error, start, end, math.log10(end / start), len(x), seeds)
