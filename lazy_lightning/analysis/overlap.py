"""Overlap of curves of different widths: the points at which they are compared, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lazy_lightning.analysis.curves import KnownCurve
from lazy_lightning.analysis.seeds import Floats

_ROUNDING = 1e-9
"""Tolerance in log x, so that grids with equal ends overlap there."""


class Overlap(NamedTuple):
    """T comparisons of a point of one curve with another curve, interpolated linearly in both logarithms.

    The points of all curves are numbered consecutively, in the order of the curves.
    """

    point: NDArray[np.intp]
    """Index (T,) of the point."""
    left: NDArray[np.intp]
    """Index (T,) of the other curve's point to its left; the next one is to its right."""
    share: Floats
    """Relative position (T,) between the left and the right point."""
    variance: Floats
    """Variance (T,) of the difference over seeds."""
    comparisons: NDArray[np.int_]
    """Number (curves,) of comparisons that involve each curve."""

    def differences(self, means: Floats) -> Floats:
        """Returns log y of the point minus log y of the other curve, (..., T), from means (..., K) of all points."""
        others = (1 - self.share) * means[..., self.left] + self.share * means[..., self.left + 1]
        apart: Floats = means[..., self.point] - others
        return apart

    def quality(self, means: Floats) -> Floats:
        """Returns the mean of differences^2/variance, (...,)."""
        quality: Floats = (self.differences(means) ** 2) @ (1 / self.variance) / len(self.variance)
        return quality


def overlap(curves: Sequence[KnownCurve], exponent: float) -> Overlap:
    """Returns all comparisons of the curves against h^exponent x."""
    starts = np.cumsum([0] + [len(curve.u) for curve in curves])
    comparisons = np.zeros(len(curves), dtype=np.int_)
    parts = []
    for p, q in permutations(range(len(curves)), 2):
        point, left, share = _inside(curves[p].u + exponent * (curves[p].log_h - curves[q].log_h), curves[q].u)
        comparisons[[p, q]] += len(point)
        variance = curves[p].variance[point] + _interpolated_variance(curves[q], left, share)
        parts.append((point + starts[p], left + starts[q], share, variance))
    point, left, share, variance = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Overlap(point, left, share, variance, comparisons)


def _inside(at: Floats, u: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Returns which of the points ``at`` lie in the range of abscissas u, their left neighbours and their positions."""
    point = np.flatnonzero((at >= u[0] - _ROUNDING) & (at <= u[-1] + _ROUNDING))
    left = np.searchsorted(u, at[point], side="right").clip(1, len(u) - 1) - 1
    share = (at[point] - u[left]) / (u[left + 1] - u[left])
    return point, left, share.clip(0.0, 1.0)


def _interpolated_variance(curve: KnownCurve, left: NDArray[np.intp], share: Floats) -> Floats:
    own = (1 - share) ** 2 * curve.variance[left] + share**2 * curve.variance[left + 1]
    variance: Floats = own + 2 * share * (1 - share) * curve.covariance[left]
    return variance
