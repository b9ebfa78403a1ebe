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

    def submit(self, batch: Batch, pending: Sequence[Batch], *, begins: bool) -> None:
        """Records that a batch has been submitted, and which batches are pending.

        Args:
            batch: the batch.
            pending: the batches that have not been submitted.
            begins: whether a worker trains the batch at once; otherwise it is queued until its first message.
        """
        self.clock.pending = list(pending)
        self.clock.queued[batch.key] = batch
        if begins:
            self._begin(batch.key)
        else:
            self.log(f"sweep: {batch_label(batch)} queued")
        self.refresh()

    def _begin(self, key: str) -> None:
        batch = self.clock.queued.pop(key)
        self.clock.running[key] = (batch, time.monotonic())
        self._display.start(key, batch_label(batch))

    def update(self, messages: Sequence[ProgressMessage]) -> None:
        """Records the progress messages of the workers, the first of which begins a queued batch."""
        for message in messages:
            if message.key in self.clock.queued:
                self._begin(message.key)
            self._messages[message.key] = message
            self.clock.shares[message.key] = message.share
        self.refresh()

    def finish(self, batch: Batch, done: int, failed: int, ended: bool, outcome: str) -> None:
        """Records that a batch is no longer running or queued.

        Args:
            batch: the batch.
            done: the number of its members that have finished.
            failed: the number of its members that have failed.
            ended: whether its time is used in the estimate of the time left.
            outcome: how it ended, in a few words.
        """
        self._messages.pop(batch.key, None)
        self.clock.shares.pop(batch.key, None)
        after = ""
        if self.clock.queued.pop(batch.key, None) is None:
            _, start = self.clock.running.pop(batch.key)
            seconds = time.monotonic() - start
            after = f" after {duration(seconds)}"
            if ended:
                self.clock.estimated += batch.seconds
                self.clock.taken += seconds
        self.done += done
        self.failed += failed
        self._display.finish(batch.key)
        self.log(f"sweep: {batch_label(batch)} {outcome}{after}")
        self.refresh()

    def log(self, line: str) -> None:
        """Prints a line that later updates do not overwrite."""
        self._display.log(line)

    def refresh(self) -> None:
        """Updates the display with the present counts."""
        done = sum(message.done - message.failed for message in self._messages.values())
        share = (self.done + self.failed + done) / max(self.total, 1)
        active = bool(self.clock.running or self.clock.queued)
        self._display.update(self.summary(), share, self._messages.values(), running=active)

    def summary(self) -> str:
        """Returns the counts of members and the time left in one line."""
        done = self.done + sum(message.done - message.failed for message in self._messages.values())
        failed = self.failed + sum(message.failed for message in self._messages.values())
        members = sum(len(batch.members) for batch, _ in self.clock.running.values())
        running = members - sum(message.done for message in self._messages.values())
        left = self.clock.seconds_left(time.monotonic())
        queued = sum(len(batch.members) for batch in self.clock.queued.values())
        rest = f", {queued} queued" if queued else ""
        rest += "" if left is None else f", about {duration(left)} left"
        return f"{done} of {self.total} members done, {failed} failed, {running} running{rest}"
