"""Progress of a running sweep: counts of its members and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.experiments.batching import Batch, batch_label
from lazy_lightning.experiments.sweep import SweepStatus
from lazy_lightning.experiments.sweep_display import LineDisplay, SweepDisplay, sweep_display
from lazy_lightning.experiments.time_estimate import TimeEstimate
from lazy_lightning.experiments.worker_pool import ProgressMessage


class SweepProgress:
    """Counts of done, failed and running members and the time left, shown while the context is entered.

    Args:
        sweep_status: the status at the beginning.
        workers: the number of batches that are trained in parallel.
    """

    def __init__(self, sweep_status: SweepStatus, workers: int) -> None:
        self.total, self.done, self.failed = (
            len(sweep_status.wanted),
            len(sweep_status.finished),
            len(sweep_status.failed),
        )
        self.clock = TimeEstimate(workers)
        self._messages: dict[str, ProgressMessage] = {}
        self._display: SweepDisplay = LineDisplay()

    def __enter__(self) -> SweepProgress:
        self._display = sweep_display()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()
        self._display = LineDisplay()

    def set_total(self, total: int) -> None:
        """Increases the total number of members, as bisections and kernels of trained networks add members."""
        self.total = max(self.total, total)

    def start(self, batch: Batch, pending: Sequence[Batch]) -> None:
        """Records that a worker has started a batch, and which batches are pending."""
        self.clock.pending = list(pending)
        self.clock.running[batch.key] = (batch, time.monotonic())
        self._display.start(batch.key, batch_label(batch))
        self.refresh()

    def update(self, messages: Sequence[ProgressMessage]) -> None:
        """Records the progress messages of the workers."""
        for message in messages:
            self._messages[message.key] = message
            self.clock.shares[message.key] = message.share
        self.refresh()

    def finish(self, batch: Batch, done: int, failed: int, ended: bool, outcome: str) -> None:
        """Records that a batch is no longer running.

        Args:
            batch: the batch.
            done: the number of its members that have finished.
            failed: the number of its members that have failed.
            ended: whether its time is used in the estimate of the time left.
            outcome: how it ended, in a few words.
        """
        _, start = self.clock.running.pop(batch.key)
        self._messages.pop(batch.key, None)
        self.clock.shares.pop(batch.key, None)
        if ended:
            self.clock.estimated += batch.seconds
            self.clock.taken += time.monotonic() - start
        self.done += done
        self.failed += failed
        self._display.finish(batch.key)
        self.log(f"sweep: {batch_label(batch)} {outcome} after {duration(time.monotonic() - start)}")
        self.refresh()

    def log(self, line: str) -> None:
        """Prints a line that later updates do not overwrite."""
        self._display.log(line)

    def refresh(self) -> None:
        """Updates the display with the present counts."""
        done = sum(message.done - message.failed for message in self._messages.values())
        share = (self.done + self.failed + done) / max(self.total, 1)
        self._display.update(self.summary(), share, self._messages.values(), running=bool(self.clock.running))

    def summary(self) -> str:
        """Returns the counts of members and the time left in one line."""
        done = self.done + sum(message.done - message.failed for message in self._messages.values())
        failed = self.failed + sum(message.failed for message in self._messages.values())
        members = sum(len(batch.members) for batch, _ in self.clock.running.values())
        running = members - sum(message.done for message in self._messages.values())
        left = self.clock.seconds_left(time.monotonic())
        rest = "" if left is None else f", about {duration(left)} left"
        return f"{done} of {self.total} members done, {failed} failed, {running} running{rest}"
