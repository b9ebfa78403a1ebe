"""Rendering of a sweep's progress: progress bars in a terminal, lines of text elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lazy_lightning.experiments.worker_pool import ProgressMessage
from lazy_lightning.plain_text import printable, rich_text

_PRINT_INTERVAL = 30.0
"""Seconds between lines with the summary."""


class SweepDisplay(Protocol):
    """Interface of the output of a sweep's progress."""

    def start(self, key: str, label: str) -> None:
        """Shows that a batch has started."""
        ...

    def update(self, summary: str, share: float, messages: Collection[ProgressMessage], running: bool) -> None:
        """Shows the progress of the sweep and of its batches.

        Args:
            summary: the state of the whole sweep in one line.
            share: completed share of the sweep, in [0, 1].
            messages: the last message of each running batch.
            running: whether a batch is running or queued.
        """
        ...

    def finish(self, key: str) -> None:
        """Removes a batch that has ended."""
        ...

    def log(self, line: str) -> None:
        """Prints a line that later updates do not overwrite."""
        ...

    def close(self) -> None:
        """Ends the display and restores the terminal."""
        ...


class BarDisplay:
    """Progress bars of the sweep and of each running batch, updated in a terminal."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
        )
        self._bar = Progress(*columns, TimeElapsedColumn(), console=Console())
        self._bar.start()
        self._sweep = self._bar.add_task("", name="sweep", total=1.0)
        self._tasks: dict[str, TaskID] = {}

    def start(self, key: str, label: str) -> None:
        """Adds the progress bar of a batch."""
        self._tasks[key] = self._bar.add_task("", name=f"  {label}", total=1.0)

    def update(self, summary: str, share: float, messages: Collection[ProgressMessage], running: bool) -> None:
        """Updates the progress bars of the sweep and of its running batches."""
        self._bar.update(self._sweep, completed=share)
        self._bar.update(self._sweep, description=summary)
        for message in messages:
            if message.key in self._tasks:
                description = f"{message.done} members ended"
                self._bar.update(self._tasks[message.key], completed=message.share, description=description)

    def finish(self, key: str) -> None:
        """Removes the progress bar of a batch."""
        if key in self._tasks:
            self._bar.remove_task(self._tasks.pop(key))

    def log(self, line: str) -> None:
        """Prints a line above the progress bars."""
        self._bar.console.print(rich_text(line), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the live display of the progress bars."""
        self._bar.stop()


class LineDisplay:
    """Lines of text about starts and ends of batches, with a summary every 30 seconds."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def start(self, key: str, label: str) -> None:
        """Prints that a batch has started."""
        print(f"sweep: {label} begins", flush=True)

    def update(self, summary: str, share: float, messages: Collection[ProgressMessage], running: bool) -> None:
        """Prints the summary if a batch is running or queued and the last summary is 30 seconds old."""
        if running and time.monotonic() - self._printed > _PRINT_INTERVAL:
            self._printed = time.monotonic()
            print(f"sweep: {summary}", flush=True)

    def finish(self, key: str) -> None:
        """Does nothing, because the end of a batch is logged as a line."""

    def log(self, line: str) -> None:
        """Prints a line of text."""
        print(printable(line), flush=True)

    def close(self) -> None:
        """Does nothing, because lines need no restoring."""


def sweep_display() -> SweepDisplay:
    """Returns progress bars if the standard output is a terminal, else lines of text."""
    return BarDisplay() if sys.stdout.isatty() else LineDisplay()
