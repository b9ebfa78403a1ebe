"""The time that some workers need for the batches of a sweep, when each takes the longest batch that is left."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Makespan(NamedTuple):
    """The course of a sweep on several workers."""

    seconds: float
    """Time from the start of the first batch to the end of the last."""
    utilisation: float
    """Share of this time in which a worker is busy, averaged over the workers; 1 for no batches."""


def makespan(expected: Sequence[float], workers: int, taken: Sequence[float] | None = None) -> Makespan:
    """Simulates a sweep: a free worker takes the batch with the longest expected time of those that are left.

    With the expected times themselves, the result is at most 4/3 - 1/(3 workers) times the shortest possible (R. L.
    Graham, *Bounds on Multiprocessing Timing Anomalies*, doi:10.1137/0117039).

    Args:
        expected: expected times of the batches in seconds, which decide the order.
        workers: number of batches that run at a time, 1 at least.
        taken: the times that they take; by default those that are expected.

    >>> makespan([3.0, 3.0, 2.0, 2.0, 2.0], workers=2)
    Makespan(seconds=7.0, utilisation=0.8571428571428571)
    """
    times = expected if taken is None else taken
    if not times:
        return Makespan(0.0, 1.0)
    order = sorted(range(len(times)), key=lambda i: -expected[i])
    free = [0.0] * workers
    for i in order:
        heapq.heappush(free, heapq.heappop(free) + times[i])
    end = max(free)
    return Makespan(end, sum(times) / (workers * end) if end > 0 else 1.0)
