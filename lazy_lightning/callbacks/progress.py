"""Progress bar of a flow: a live line in a terminal, a printed line at intervals elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.printing import SafeConsole, attempt, show
from lazy_lightning.modules.observation import Record, Sink, finite_mean

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class FlowProgressBar(ProgressBar, Sink):
    """Progress bar with the completed share, t, dt, loss, error, running members, evaluations per accepted step.

    Args:
        every_seconds: interval between printed lines if the output is not a terminal.
    """

    def __init__(self, every_seconds: float = 10.0) -> None:
        check_arguments(FlowProgressBar, locals())
        super().__init__()
        self.every_seconds = every_seconds
        self._enabled = True
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._printed = -np.inf

    @property
    def is_enabled(self) -> bool:
        """Whether output is enabled, used by ``LightningModule.print``."""
        return self._enabled

    def disable(self) -> None:
        """Disables output; Lightning calls this on all ranks except rank 0."""
        self._enabled = False

    def enable(self) -> None:
        """Enables output after it was disabled."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints for ``LightningModule.print`` if the stream can be written."""
        attempt(lambda: super(FlowProgressBar, self).print(*args, **kwargs))

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Starts the live line if the output is a terminal."""
        if self._enabled and sys.stdout.isatty():
            columns = (TextColumn("flow"), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=SafeConsole())
            self._task = self._bar.add_task("", total=1.0)
            attempt(self._bar.start)

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Updates the live line, or prints a line if the interval has passed."""
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
        """Ends the live line."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Ends the live line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            attempt(self._bar.stop)
            self._bar = None


def progress_share(module: ObservableModule, record: Record) -> float:
    """Returns the completed share in [0, 1]: the mean over members of that of their nearest stopping criterion."""
    return float(np.nanmean(module.shares_done(record)))


def progress_line(record: Record) -> str:
    """Formats the main columns of one observation as one line."""
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
    accepted = columns["accepted"].sum()
    a_step = f"{columns['tried'].sum() / accepted:.2f}" if accepted else "-"
    return "  ".join([*parts, f"members {int(running.sum())}/{len(running)}", f"evaluations/step {a_step}"])


def _range(values: NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.1e}" if high <= 1.05 * low else f"{low:.1e}..{high:.1e}"
