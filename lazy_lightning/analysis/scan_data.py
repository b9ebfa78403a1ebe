"""Measurements over a sweep, validated and sorted, so that results do not depend on their order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.seeds import Floats, seed_columns
from lazy_lightning.errors import AnalysisError


class ScanData(NamedTuple):
    """Points in ascending order of x, and seeds sorted by value, so that resamples do not depend on their order."""

    x: Floats
    """Points (k,), positive."""
    y: Floats
    """Measurements (k, s), NaN where a seed is missing."""

    @property
    def seeds(self) -> int:
        """Number of seeds with at least one value."""
        return len(self.y.T)


def checked_scan(
    x: ArrayLike, y: ArrayLike, *, positive: bool, distinct: bool = True, least_seeds: int = 2
) -> ScanData:
    """Returns the points and seeds that can be used.

    Seeds without any value are left out, then points with fewer than ``least_seeds`` seeds, because their error is
    unknown, unless there are fewer seeds in total.

    Args:
        x: points (k,).
        y: measurements (k, s), or (k,) for one seed.
        positive: whether y must be positive.
        distinct: whether the x must be distinct.
        least_seeds: the smallest number of seeds of a point.

    Raises:
        AnalysisError: the shapes do not fit, an x is not a positive number or occurs twice, or a y is infinite or not
            positive.
    """
    points, values = _checked_x(x), seed_columns(y, positive=positive)
    if len(points) != len(values):
        raise AnalysisError(f"x has {len(points)} points and y {len(values)} rows, expected one row for each point.")
    present = ~np.isnan(values)
    values, present = values[:, present.any(axis=0)], present[:, present.any(axis=0)]
    used = present.sum(axis=1) >= min(least_seeds, max(values.shape[1], 1))
    points, values = points[used], values[used]
    if distinct and len(np.unique(points)) < len(points):
        twice = next(p for p in points if (points == p).sum() > 1)
        raise AnalysisError(f"x = {twice:g} occurs twice, expected each x once: put its seeds in one row.")
    return _in_order(points, values)


def _checked_x(x: ArrayLike) -> Floats:
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 1:
        raise AnalysisError(f"x has shape {points.shape}, expected (k,): one number for each point.")
    wrong = ~(np.isfinite(points) & (points > 0))
    if wrong.any():
        where = int(wrong.argmax())
        raise AnalysisError(f"x[{where}] is {points[where]:g}, expected a positive number: leave the point out.")
    return points


def _in_order(points: Floats, values: Floats) -> ScanData:
    # The rows of an x that occurs twice are ordered by their sorted values, with NaNs last.
    ties = np.sort(values, axis=1).T[::-1]
    rows = np.lexsort([*ties, points])
    values = values[rows]
    columns = np.lexsort(values[::-1]) if values.size else np.arange(values.shape[1])
    return ScanData(points[rows], values[:, columns])
