"""The scales at which a bisection needs measurements, recomputed from the results so that it resumes after a stop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lazy_lightning.experiments.sweep_spec import Bisection
from lazy_lightning.runs.configuration import significant


class Search(NamedTuple):
    """The state of a bisection."""

    scales: list[float]
    """All scales requested so far, in increasing order."""
    interval: tuple[float, float] | None
    """The interval that contains the crossing; None if it is not known yet, or lies outside the range."""
    complete: bool
    """Whether no more scales are needed, because the crossing is located or cannot be."""


def search(bisection: Bisection, measured: Mapping[float, Sequence[float]]) -> Search:
    """Computes the rounds of a bisection as far as their values are known.

    Each round adds ``points`` new scales inside the interval of the crossing at the largest scales.

    Args:
        bisection: the specification of the bisection.
        measured: the column's values over the seeds, by scale; empty or not finite where all failed.
    """
    low, high = bisection.start, bisection.end
    requested = _spread(low, high, bisection.points, ends=True)
    while all(scale in measured for scale in requested):
        values = {scale: _geometric_mean(measured[scale]) for scale in requested}
        known = sorted(scale for scale in requested if math.isfinite(values[scale]))
        interval = _interval(known, [values[scale] for scale in known], bisection.level)
        if interval is None or math.log10(interval[1] / interval[0]) <= bisection.tolerance:
            return Search(sorted(requested), interval, True)
        new = [scale for scale in _spread(*interval, bisection.points, ends=False) if scale not in requested]
        if not new:  # every scale in between failed
            return Search(sorted(requested), interval, True)
        requested += new
        low, high = interval
    return Search(sorted(requested), None if (low, high) == (bisection.start, bisection.end) else (low, high), False)


def _spread(low: float, high: float, points: int, ends: bool) -> list[float]:
    intervals = points - 1 if ends else points + 1
    shares = np.arange(points) / intervals if ends else np.arange(1, points + 1) / intervals
    return [significant(low * (high / low) ** share, 10) for share in shares.tolist()]


def _interval(scales: Sequence[float], values: Sequence[float], level: float) -> tuple[float, float] | None:
    pairs = list(zip(scales, values, strict=True))
    for (a, at_a), (b, at_b) in reversed(list(itertools.pairwise(pairs))):
        if (at_a - level) * (at_b - level) <= 0:
            return a, b
    return None


def _geometric_mean(values: Sequence[float]) -> float:
    usable = np.array([value for value in values if math.isfinite(value) and value > 0])
    return float(np.exp(np.log(usable).mean())) if len(usable) else math.nan
