"""Measurements over a sweep, checked and in one order, so that no result depends on the order they came in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.seeds import Floats, seed_columns
from lazy_lightning.errors import AnalysisError


class ScanData(NamedTuple):
    """Points in ascending x; seeds in the order of their values, so that resamples do not depend on their names."""

    x: Floats
    """(k,) positive."""
    y: Floats
    """(k, s), NaN where a seed is missing."""

    @property
    def seeds(self) -> int:
        """How many seeds have any value."""
        return len(self.y.T)


def checked_scan(
    x: ArrayLike, y: ArrayLike, *, positive: bool, distinct: bool = True, least_seeds: int = 2
) -> ScanData:
    """The points and seeds that can be used.

    Seeds without any value are left out, then points that fewer than ``least_seeds`` seeds have reached (unless
    there are no more seeds at all): their error is not known.

    Args:
        x: (k,).
        y: (k, s), or (k,) for one seed.
        positive: whether y must be above 0.
        distinct: whether no x may stand twice.
        least_seeds: see above.

    Raises:
        AnalysisError: shapes that do not fit, an x that is not a positive number or stands twice, a y that is infinite
            or not positive.
    """
    points, values = _checked_x(x), seed_columns(y, positive=positive)
    if len(points) != len(values):
        raise AnalysisError(f"x has {len(points)} points and y {len(values)} rows, expected one row for each point.")
    there = ~np.isnan(values)
    values, there = values[:, there.any(axis=0)], there[:, there.any(axis=0)]
    used = there.sum(axis=1) >= min(least_seeds, max(values.shape[1], 1))
    points, values = points[used], values[used]
    if distinct and len(np.unique(points)) < len(points):
        twice = next(p for p in points if (points == p).sum() > 1)
        raise AnalysisError(f"x = {twice:g} stands twice, expected each x once: put its seeds in one row.")
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
    # Where an x stands twice, its rows are put in the order of their sorted values: NaNs come last.
    ties = np.sort(values, axis=1).T[::-1]
    rows = np.lexsort([*ties, points])
    values = values[rows]
    columns = np.lexsort(values[::-1]) if values.size else np.arange(values.shape[1])
    return ScanData(points[rows], values[:, columns])
