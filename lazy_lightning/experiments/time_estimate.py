"""Estimate of the remaining time of a sweep from the costs of its batches and the time of those that have ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from lazy_lightning.experiments.batching import Batch

_PRIOR_WEIGHT = 0.2
"""Weight of the cost model: a fifth of each running batch counts as if it had taken the estimated time.

Without it the first estimates would be too large, because the reported shares of work increase late.
"""


@dataclass
class TimeEstimate:
    """The remaining time of a sweep: estimated costs, times the ratio of taken to estimated time so far."""

    workers: int
    pending: list[Batch] = field(default_factory=list)
    queued: dict[str, Batch] = field(default_factory=dict)
    """The batches that wait for a machine, by key: their time has not begun."""
    running: dict[str, tuple[Batch, float]] = field(default_factory=dict)
    """The running batches by key, each with the time of its start."""
    shares: dict[str, float] = field(default_factory=dict)
    """Completed shares of the running batches by key."""
    estimated: float = 0.0
    """Estimated time of the batches that have ended."""
    taken: float = 0.0
    """Measured time of the batches that have ended."""

    def seconds_left(self, now: float) -> float | None:
        """Returns the remaining seconds, or None before any batch has started."""
        estimated, taken = self.estimated, self.taken
        for key, (batch, start) in self.running.items():
            estimated += self.shares.get(key, 0.0) * batch.seconds
            taken += now - start
        prior = _PRIOR_WEIGHT * sum(batch.seconds for batch, _ in self.running.values())
        if estimated + prior <= 0:
            return None
        waiting = [*self.pending, *self.queued.values()]
        left = sum(batch.seconds for batch in waiting)
        left += sum((1 - self.shares.get(key, 0.0)) * batch.seconds for key, (batch, _) in self.running.items())
        parallel = min(self.workers, max(1, len(waiting) + len(self.running)))
        return left * (taken + prior) / (estimated + prior) / parallel
