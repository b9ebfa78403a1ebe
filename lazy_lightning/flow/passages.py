"""Passages: where members were at points of a grid in t that a burst of long steps has jumped over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.flow.interpolant import Interpolant

_FINER = 2
"""Points of the grid from one power of the factor to the next."""
_FROM_THE_START = 16
"""Points that are taken of a step from t = 0, below which the grid has no end."""
_APART_AT_THE_START = 1.5
"""The least ratio of these points."""
_OBSERVED_FROM_THE_START = 5.0
"""The last ones of them, within this factor of the end, are observed."""


class Point(NamedTuple):
    """Where one member was within a step."""

    t: float
    is_observed: bool
    """Whether it is one of the times at which members are observed; the others lie between these."""
    displacement: Tensor
    """(N,) dw = w - w0."""
    velocity: Tensor | None
    """(N,) with momentum, else None."""


class Passage(NamedTuple):
    """Members at a time of their own within a burst; R of them, N weights."""

    rows: Tensor
    """(R,) int64 the indices of the members."""
    t: Tensor
    """(R,) float64"""
    displacement: Tensor
    """(R, N)"""
    velocity: Tensor | None
    """(R, N) with momentum, else None."""


class Passages:
    """Collects where the members of a burst were within long steps, by interpolation.

    They are taken at the points factor^(k/2) of a grid in t; of a step from t = 0, at some of them down to 1/600 of its
    end.

    Args:
        factor: the ratio of successive times of observation, over 1.
        device: that of the flow.
    """

    def __init__(self, factor: float, device: torch.device | str = "cpu") -> None:
        self.factor = factor
        self._device = device
        self._points: dict[int, list[Point]] = {}

    def begin(self) -> None:
        """Forgets the points of the burst before."""
        self._points = {}

    def add(
        self,
        members: Sequence[int],
        before: Sequence[float],
        after: Sequence[float],
        interpolant: Interpolant,
    ) -> None:
        """Adds the points that one attempt at a step has passed.

        Args:
            members: the index of each of the E' members that have taken part.
            before: their times before the attempt.
            after: their times after it; the same where it was rejected.
            interpolant: of these members.
        """
        ends = enumerate(zip(before, after, strict=True))
        found = [(i, power) for i, (start, end) in ends for power in self._powers_within(start, end)]
        if not found:
            return
        times = [self.factor**power for _, power in found]
        shares = [(t - before[i]) / (after[i] - before[i]) for (i, _), t in zip(found, times, strict=True)]
        within = interpolant([i for i, _ in found], torch.tensor(shares, dtype=torch.float64, device=self._device))
        for j, (i, power) in enumerate(found):
            velocity = None if within.velocity is None else within.velocity[j]
            observed = power == int(power) and (before[i] > 0 or after[i] <= _OBSERVED_FROM_THE_START * times[j])
            point = Point(times[j], observed, within.displacement[j], velocity)
            self._points.setdefault(members[i], []).append(point)

    def between(self, member: int, start: float, end: float) -> list[Point]:
        """The points of one member in this burst between two times, in their order."""
        return [point for point in self._points.get(member, []) if start < point.t < end]

    def taken(self, end: Sequence[float]) -> list[Passage]:
        """The passages to be observed: the j-th powers of the factor that members have jumped over together.

        Those within a factor of sqrt(factor) of the end of the burst, where the members are observed anyway, are left
        out. So successive observations of a member are at most factor^(3/2) apart in t.

        Args:
            end: the times of all E members after the burst.
        """
        near = math.sqrt(self.factor) * (1 - 1e-9)
        kept = {
            member: [p for p in points if p.is_observed and near * p.t <= end[member]]
            for member, points in self._points.items()
        }
        longest = max((len(points) for points in kept.values()), default=0)
        return [_joined({m: points[j] for m, points in kept.items() if len(points) > j}) for j in range(longest)]

    def _powers_within(self, start: float, end: float) -> list[float]:
        """The powers of the factor between two times, and those halfway."""
        if not start < end:
            return []
        unit = math.log(self.factor)
        last = math.ceil(math.log(end) / unit)
        if start > 0:
            first = math.floor(math.log(start) / unit)
            powers = [first + k / _FINER for k in range((last - first) * _FINER + 1)]
        else:
            apart = math.ceil(math.log(_APART_AT_THE_START) / unit - 1e-9)
            powers = [float(last - apart * k) for k in range(_FROM_THE_START, -1, -1)]
        return [power for power in powers if start < self.factor**power < end]


def _joined(points: dict[int, Point]) -> Passage:
    """One passage of several members."""
    rows = sorted(points)
    displacement = torch.stack([points[row].displacement for row in rows])
    velocities = [v for row in rows if (v := points[row].velocity) is not None]
    return Passage(
        torch.tensor(rows, device=displacement.device),
        torch.tensor([points[row].t for row in rows], dtype=torch.float64, device=displacement.device),
        displacement,
        torch.stack(velocities) if velocities else None,
    )
