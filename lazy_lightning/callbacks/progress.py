"""The flow's progress bar: one live line in a terminal, one line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lazy_lightning.callbacks.printing import SafeConsole, attempt, show
from lazy_lightning.modules.observation import Record, Sink, finite_mean

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class FlowProgressBar(ProgressBar, Sink):
    """Shows how far the margins are met, t, dt, loss, error, members left, and the share of accepted steps.

    Args:
        every_seconds: how often to print a line where there is no terminal.
    """

    def __init__(self, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled = True
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._printed = -np.inf

    @property
    def is_enabled(self) -> bool:
        """``LightningModule.print`` asks."""
        return self._enabled

    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints for ``LightningModule.print``, if there is somebody to read it."""
        attempt(lambda: super(FlowProgressBar, self).print(*args, **kwargs))

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Opens the live line, if there is a terminal."""
        if self._enabled and sys.stdout.isatty():
            columns = (TextColumn("flow"), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=SafeConsole())
            self._task = self._bar.add_task("", total=1.0)
            attempt(self._bar.start)

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Moves on."""
        if not self._enabled:
            return
        share, line = progress_share(module, record), progress_line(record)
        if self._bar is not None and self._task is not None:
            bar, task = self._bar, self._task
            attempt(lambda: bar.update(task, completed=share, description=line))
        elif not sys.stdout.isatty() and (record.final or time.monotonic() - self._printed > self.every_seconds):
            self._printed = time.monotonic()
            show(f"flow {100 * share:5.1f} %  {line}  {record.wall:.0f} s")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Closes the live line."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Closes the live line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            attempt(self._bar.stop)
            self._bar = None


def progress_share(module: ObservableModule, record: Record) -> float:
    """In [0, 1]: the mean over members of the nearest of their stops."""
    return float(np.nanmean(module.shares_done(record)))


def progress_line(record: Record) -> str:
    """The numbers of one observation, in one line."""
    columns = record.columns
    running = columns["reason"] == 0
    shown = running if running.any() else np.ones_like(running)
    parts = [
        f"t {_range(columns['t'][shown])}",
        f"dt {_range(columns['dt'][shown])}",
        f"loss {finite_mean(columns['train/loss']):.2e}",
    ]
    if "train/error" in columns:
        parts.append(f"error {100 * finite_mean(columns['train/error']):.1f} %")
    if "test/error" in columns:
        parts.append(f"test {100 * finite_mean(columns['test/error']):.1f} %")
    tried = columns["tried"].sum()
    accepted = f"{100 * columns['accepted'].sum() / tried:.0f} %" if tried else "-"
    return "  ".join([*parts, f"members {int(running.sum())}/{len(running)}", f"accepted {accepted}"])


def _range(values: NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.1e}" if high <= 1.05 * low else f"{low:.1e}..{high:.1e}"
