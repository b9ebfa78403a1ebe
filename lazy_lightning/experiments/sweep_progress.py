"""What a person sees while a sweep is at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lazy_lightning.duration import duration
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.experiments.sweep import SweepStatus
from lazy_lightning.experiments.worker_pool import ProgressMessage
from lazy_lightning.plain_text import printable, rich_text

_EVERY = 30.0
_TRUST = 0.2
"""In the estimates, as if a fifth of each running batch had taken as long as was said: shares of work start late."""


@dataclass
class TimeEstimate:
    """How long the rest will take: estimates, corrected by how long what has been done took."""

    workers: int
    pending: list[Batch] = field(default_factory=list)
    running: dict[str, tuple[Batch, float]] = field(default_factory=dict)
    """By key, with the time of the start."""
    shares: dict[str, float] = field(default_factory=dict)
    estimated: float = 0.0
    """Of batches that have ended."""
    taken: float = 0.0

    def seconds_left(self, now: float) -> float | None:
        """None before anything is known."""
        estimated, taken = self.estimated, self.taken
        for key, (batch, start) in self.running.items():
            estimated += self.shares.get(key, 0.0) * batch.seconds
            taken += now - start
        trust = _TRUST * sum(batch.seconds for batch, _ in self.running.values())
        if estimated + trust <= 0:
            return None
        left = sum(batch.seconds for batch in self.pending)
        left += sum((1 - self.shares.get(key, 0.0)) * batch.seconds for key, (batch, _) in self.running.items())
        at_once = min(self.workers, max(1, len(self.pending) + len(self.running)))
        return left * (taken + trust) / (estimated + trust) / at_once


class SweepProgress:
    """Members done, failed and running, and the time left: live in a terminal, a line now and then elsewhere.

    Args:
        sweep_status: at the beginning.
        workers: batches trained at a time.
    """

    def __init__(self, sweep_status: SweepStatus, workers: int) -> None:
        self.total, self.done, self.failed = (
            len(sweep_status.wanted),
            len(sweep_status.finished),
            len(sweep_status.failed),
        )
        self.clock = TimeEstimate(workers)
        self._now: dict[str, ProgressMessage] = {}
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._printed = time.monotonic()

    def __enter__(self) -> SweepProgress:
        if sys.stdout.isatty():
            columns = (
                TextColumn("{task.fields[name]}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console())
            self._bar.start()
            self._tasks[""] = self._bar.add_task("", name="sweep", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def set_total(self, total: int) -> None:
        """More is wanted than at the beginning."""
        self.total = max(self.total, total)

    def start(self, batch: Batch, pending: Sequence[Batch]) -> None:
        """A worker has been given a batch."""
        self.clock.pending = list(pending)
        self.clock.running[batch.key] = (batch, time.monotonic())
        if self._bar is not None:
            self._tasks[batch.key] = self._bar.add_task("", name=f"  {batch_label(batch)}", total=1.0)
        else:
            print(f"sweep: {batch_label(batch)} begins", flush=True)
        self.refresh()

    def update(self, news: Sequence[ProgressMessage]) -> None:
        """From workers."""
        for one in news:
            self._now[one.key] = one
            self.clock.shares[one.key] = one.share
        self.refresh()

    def finish(self, batch: Batch, done: int, failed: int, ended: bool, said: str) -> None:
        """A batch is no longer at work.

        Args:
            batch: which.
            done: members that have finished in it.
            failed: that have failed.
            ended: whether its time says something about the rest.
            said: in a few words.
        """
        _, start = self.clock.running.pop(batch.key)
        self._now.pop(batch.key, None)
        self.clock.shares.pop(batch.key, None)
        if ended:
            self.clock.estimated += batch.seconds
            self.clock.taken += time.monotonic() - start
        self.done += done
        self.failed += failed
        if self._bar is not None and batch.key in self._tasks:
            self._bar.remove_task(self._tasks.pop(batch.key))
        self.log(f"sweep: {batch_label(batch)} {said} after {duration(time.monotonic() - start)}")
        self.refresh()

    def log(self, line: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(rich_text(line), highlight=False, soft_wrap=True)
        else:
            print(printable(line), flush=True)

    def refresh(self) -> None:
        """Shows the present."""
        if self._bar is not None:
            done = sum(news.done - news.failed for news in self._now.values())
            self._bar.update(self._tasks[""], completed=(self.done + self.failed + done) / max(self.total, 1))
            self._bar.update(self._tasks[""], description=self.summary())
            for key, news in self._now.items():
                if key in self._tasks:
                    self._bar.update(self._tasks[key], completed=news.share, description=f"{news.done} members ended")
        elif self.clock.running and time.monotonic() - self._printed > _EVERY:
            self._printed = time.monotonic()
            print(f"sweep: {self.summary()}", flush=True)

    def summary(self) -> str:
        """The whole in one line."""
        done = self.done + sum(news.done - news.failed for news in self._now.values())
        failed = self.failed + sum(news.failed for news in self._now.values())
        members = sum(len(batch.members) for batch, _ in self.clock.running.values())
        running = members - sum(news.done for news in self._now.values())
        left = self.clock.seconds_left(time.monotonic())
        rest = "" if left is None else f", about {duration(left)} left"
        return f"{done} of {self.total} members done, {failed} failed, {running} running{rest}"


def batch_label(batch: Batch) -> str:
    """A batch for people: what sets it apart within the sweep, its alphas and its number of seeds."""
    setting, alphas = setting_label(batch.group.setting), batch.alphas
    span = f"{len(alphas)} alphas {min(alphas):.2g} to {max(alphas):.2g} x " if len(alphas) > 1 else ""
    size = f"{span}{len(batch.seeds)} seed{'s' * (len(batch.seeds) > 1)}"
    return printable(f"{setting} ({size})" if setting else size)


def setting_label(setting: Mapping[str, Any]) -> str:
    """What sets a family apart.

    >>> setting_label({"model.network.width": 30, "kernel": "at init"})
    'width 30, kernel at init'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting.items())
