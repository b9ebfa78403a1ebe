"""Crossing of a curve and a level, for example alpha*, at which the kernel drift falls through one half."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.analysis.number_format import within_factor
from lazy_lightning.analysis.scan_data import ScanData, checked_scan
from lazy_lightning.analysis.seeds import Floats, error_over_resamples, resampled_means, seed_means
from lazy_lightning.errors import AnalysisError


class Crossing(NamedTuple):
    """The x at which y crosses a level."""

    value: float
    """The x of the crossing."""
    error: float
    """Standard error over seeds, value ln(10) log10_error; NaN for one seed, infinite if log10_error is."""
    log10_error: float
    """Standard error of log10 x; two of it cover in 95 %. Infinite if more than 16 % of the resamples cross beyond one
    end of the sweep."""
    below: float
    """The point of the sweep before the crossing."""
    above: float
    """The point of the sweep at the crossing or after it."""
    crossings: int
    """Number of crossings, of which the one at the largest x is used."""
    missed: float
    """The share of resamples that never cross. NaN for one seed."""

    def __str__(self) -> str:
        return within_factor(self.value, self.log10_error)


def crossing(x: ArrayLike, y: ArrayLike, level: float, *, resamples: int = 1000, seed: int = 0) -> Crossing:
    """Returns the largest x at which the geometric mean over seeds of y crosses ``level`` in either direction.

    The mean is interpolated linearly in both logarithms. A curve that touches the level and turns back does not cross.
    The error is from a bootstrap over whole columns: half the width of the central 68 % of the resampled log x, widened
    for few seeds. A resample that never crosses is assigned to the end of the sweep at which it is nearer to the level.
    The error does not include the curvature between two points of the sweep.

    Points with a single seed are left out if other points have more seeds.

    Args:
        x: points (k,) of the sweep.
        y: measurements (k, s), NaN where a seed is missing; (k,) is one seed.
        level: a positive number.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        AnalysisError: y never crosses the level, there are fewer than two points, an x occurs twice, or values are not
            positive.

    >>> print(crossing([1.0, 10.0, 100.0], [[4.0, 4.1, 4.2], [1.0, 1.1, 1.2], [0.1, 0.11, 0.12]], level=0.5))
    21.9 (within a factor 1.13)
    """
    if not (math.isfinite(level) and level > 0):
        raise AnalysisError(f"level is {level}, expected a positive number, because the crossing is that of log y.")
    sweep = checked_scan(x, y, positive=True)
    if len(sweep.x) < 2:
        raise AnalysisError(f"A crossing needs two points at least, got {len(sweep.x)} with enough seeds: add some.")
    u, heights = np.log(sweep.x), np.log(sweep.y) - math.log(level)
    means = seed_means(heights)
    changes = _changes_of_side(means)
    if not changes.any():
        raise AnalysisError(_never(sweep, means, level))
    last = int(np.flatnonzero(changes)[-1])
    error, missed = _bootstrap(u, heights, resamples, seed) if sweep.seeds > 1 else (math.nan, math.nan)
    value = float(np.exp(last_crossings(u, means[None])[0]))
    return Crossing(
        value=value,
        error=value * error,
        log10_error=error / math.log(10),
        below=float(sweep.x[last]),
        above=float(sweep.x[last + 1]),
        crossings=int(changes.sum()),
        missed=missed,
    )


def last_crossings(u: Floats, heights: Floats) -> Floats:
    """Returns the largest u (r,) at which each row of heights (r, k) crosses 0, or an infinity if it never does.

    The infinity is positive if the row ends nearer to 0 than it starts, else negative.

    >>> last_crossings(np.array([0.0, 1.0, 2.0]), np.array([[1.0, -1.0, -3.0], [3.0, 2.0, 1.0]]))
    array([0.5, inf])
    """
    changes = _changes_of_side(heights)
    crosses = changes.any(axis=1)
    last = changes.shape[1] - 1 - changes[:, ::-1].argmax(axis=1)
    rows = np.arange(len(heights))
    before, after = heights[rows, last], heights[rows, last + 1]
    share = np.divide(before, before - after, out=np.zeros(len(rows)), where=crosses)
    beyond = np.where(np.abs(heights[:, -1]) <= np.abs(heights[:, 0]), np.inf, -np.inf)
    crossings: Floats = np.where(crosses, u[last] + share * (u[last + 1] - u[last]), beyond)
    return crossings


def _changes_of_side(heights: Floats) -> NDArray[np.bool_]:
    """Returns whether a point and the last nonzero one before it have opposite signs, (..., k - 1)."""
    side = np.sign(heights)
    seen = np.where(side != 0, np.arange(side.shape[-1]), 0)
    side = np.take_along_axis(side, np.maximum.accumulate(seen, axis=-1), axis=-1)
    changes: NDArray[np.bool_] = side[..., 1:] * side[..., :-1] < 0
    return changes


def _bootstrap(u: Floats, heights: Floats, resamples: int, seed: int) -> tuple[float, float]:
    """Returns the error of log x, and the share of resamples that never cross."""
    curves = resampled_means(heights, resamples=resamples, rng=np.random.default_rng(seed))
    crossings = last_crossings(u, curves)
    return error_over_resamples(crossings, heights.shape[1] - 1), float(np.isinf(crossings).mean())


def _never(sweep: ScanData, means: Floats, level: float) -> str:
    low, high = level * math.exp(means.min()), level * math.exp(means.max())
    side = "on both sides of it" if low == high else "above" if high > level else "below"
    end = "larger" if abs(means[-1]) <= abs(means[0]) else "smaller"
    return (
        f"y never crosses {level:g}: from x = {sweep.x[0]:g} to {sweep.x[-1]:g} it goes from {low:g} to {high:g}, all "
        f"{side}; extend the sweep to {end} x, or choose another level."
    )
