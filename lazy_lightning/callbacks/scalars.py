"""TensorBoard scalars: one TensorBoard run for each alpha with the same tags, so that a chart compares alphas."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.modules.logged_columns import alpha_means
from lazy_lightning.modules.observation import Record, Sink, finite_mean

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

FOLDER = "tb"
"""Folder of the TensorBoard runs in the run's folder; short, because TensorBoard truncates long names of runs."""
MAIN = "1_main"
AGAINST_T = "2_main_against_t"
MAIN_COLUMNS = (
    "test/error",
    "test/loss",
    "train/error",
    "train/loss",
    "test/ensemble_error",
    "tangent_departure",
    "displacement/total",
    "kernel_drift/total",
)
"""The main columns; their tags begin with a digit, because TensorBoard sorts by name."""
_FLOW = ("t", "dt", "tried", "accepted", "gradient_norm", "gradient_change", "lr")
_STEP = (
    "Mean over the members of one alpha. Horizontal axis: the count of observations, 0 is w0. All columns of every "
    "member, against t, are in curves.parquet."
)
_STEP_T = (
    "Mean over the members of one alpha. Horizontal axis: 1000 log10(t), t the geometric mean of the members' flow "
    "times, because this axis must be an integer: 0 is t = 1, 3000 is t = 1000, -2000 is t = 0.01."
)


def tag_of(column: str) -> str:
    """Returns the TensorBoard tag of a column.

    >>> tag_of("test/error"), tag_of("dt"), tag_of("dw_max/head"), tag_of("laziness_index")
    ('1_main/test/error', 'flow/dt', 'dw_max/head', 'other/laziness_index')
    """
    if column in MAIN_COLUMNS:
        return f"{MAIN}/{column}"
    if column in _FLOW:
        return f"flow/{column}"
    return column if "/" in column else f"other/{column}"


def alpha_folder(folder: Path, alpha: float) -> Path:
    """Returns the folder of the TensorBoard run of an alpha."""
    return folder / FOLDER / f"alpha={alpha:g}"


class TensorBoardScalars(Sink):
    """Sink that writes means over the members of each alpha to the TensorBoard run ``tb/alpha=A`` in the run's folder.

    The tags are the same for all alphas, so that TensorBoard draws them in one chart: losses and errors under
    ``1_main/``, times and steps of the flow under ``flow/``, all other columns under their own names. The step is the
    count of observations. Losses and errors are repeated under ``2_main_against_t/`` with step = 1000 log10(t), because
    TensorBoard's horizontal axis is an integer: 0 is t = 1 and 3000 is t = 1000. The description of each chart explains
    its axis.

    It needs a TensorBoard logger of the trainer; the module logs the columns to other loggers.

    Args:
        against_t: whether to write the tags under ``2_main_against_t/``.
        every_seconds: interval between writes to the disk during the run.
    """

    def __init__(self, against_t: bool = True, every_seconds: float = 5.0) -> None:
        check_arguments(TensorBoardScalars, locals())
        self.against_t = against_t
        self.every_seconds = every_seconds
        self._writers: dict[Path, EventFileWriter] = {}
        self._described: set[tuple[Path, str]] = set()
        self._flushed = time.monotonic()

    def writes_to(self, logger: Logger) -> bool:
        """Returns whether a logger is a TensorBoard logger."""
        return isinstance(logger, TensorBoardLogger)

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Writes the observation for every TensorBoard logger of the trainer."""
        if not trainer.is_global_zero:
            return
        folders = [Path(logger.log_dir) for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        alphas = np.asarray(module.ensemble.alphas)
        for alpha, means in alpha_means(module.ensemble, record).items() if folders else ():
            t = _log_mean(record.columns["t"][alphas == alpha])
            for name, value in means.items():
                if math.isfinite(value):
                    for folder in folders:
                        self._write(alpha_folder(folder, alpha), name, value, record.index, t)
        if time.monotonic() - self._flushed > self.every_seconds:
            self._flushed = time.monotonic()
            for writer in self._writers.values():
                writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Closes the event files."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: ObservableModule, exception: BaseException) -> None:  # type: ignore[override]
        """Closes the event files."""
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers, self._described = {}, set()

    def _write(self, folder: Path, name: str, value: float, index: int, t: float | None) -> None:
        if folder not in self._writers:
            self._writers[folder] = EventFileWriter(str(folder))
        self._add(folder, tag_of(name), value, index, _STEP)
        if self.against_t and t is not None and name in MAIN_COLUMNS:
            self._add(folder, f"{AGAINST_T}/{name}", value, round(1000 * t), _STEP_T)

    def _add(self, folder: Path, tag: str, value: float, step: int, description: str) -> None:
        """Adds a point; the first point of a tag contains the description that TensorBoard shows with the chart."""
        metadata = None
        if (folder, tag) not in self._described:
            self._described.add((folder, tag))
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")
            metadata = SummaryMetadata(summary_description=description, plugin_data=plugin)
        point = Summary.Value(tag=tag, simple_value=value, metadata=metadata)
        self._writers[folder].add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[point])))


def _log_mean(t: NDArray[np.float64]) -> float | None:
    """Returns log10 of the geometric mean of t, or None at t = 0."""
    mean = finite_mean(np.log10(t)) if (t > 0).all() else math.nan
    return mean if math.isfinite(mean) else None
