"""TensorBoard scalars: one TensorBoard run for each alpha, with the same tags, so that alphas share a chart."""

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

from lazy_lightning.modules.logged_columns import alpha_means
from lazy_lightning.modules.observation import Record, Sink, finite_mean

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

FOLDER = "tb"
"""Of the TensorBoard runs, in the folder of the run; short, because TensorBoard cuts off long names of runs."""
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
"""The columns that matter first; TensorBoard sorts by name, so their tags begin with a digit."""
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
    """The TensorBoard tag of a column.

    >>> tag_of("test/error"), tag_of("dt"), tag_of("dw_max/head"), tag_of("laziness_index")
    ('1_main/test/error', 'flow/dt', 'dw_max/head', 'other/laziness_index')
    """
    if column in MAIN_COLUMNS:
        return f"{MAIN}/{column}"
    if column in _FLOW:
        return f"flow/{column}"
    return column if "/" in column else f"other/{column}"


def alpha_folder(folder: Path, alpha: float) -> Path:
    """Where the TensorBoard run of an alpha is."""
    return folder / FOLDER / f"alpha={alpha:g}"


class TensorBoardScalars(Sink):
    """Means over the members of each alpha, in the TensorBoard run ``tb/alpha=A`` of the run's folder.

    Tags are the same for all alphas, so that TensorBoard draws them in one chart: losses and errors under ``1_main/``,
    the flow's clocks under ``flow/``, all other columns under their own names. The step is the count of observations.
    Under ``2_main_against_t/`` losses and errors come again with step = 1000 log10(t), because TensorBoard's horizontal
    axis is an integer: 0 is t = 1 and 3000 is t = 1000. The information mark of each chart says so.

    Writes where the trainer has a TensorBoard logger; other loggers get the columns from the module itself.

    Args:
        against_t: write the second set.
        every_seconds: how often to write to disk while the run goes on.
    """

    def __init__(self, against_t: bool = True, every_seconds: float = 5.0) -> None:
        self.against_t = against_t
        self.every_seconds = every_seconds
        self._writers: dict[Path, EventFileWriter] = {}
        self._described: set[tuple[Path, str]] = set()
        self._flushed = time.monotonic()

    def writes_to(self, logger: Logger) -> bool:
        """TensorBoard's loggers."""
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
        """Adds a point; the first of a tag carries the description that TensorBoard shows beside the chart."""
        metadata = None
        if (folder, tag) not in self._described:
            self._described.add((folder, tag))
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")
            metadata = SummaryMetadata(summary_description=description, plugin_data=plugin)
        point = Summary.Value(tag=tag, simple_value=value, metadata=metadata)
        self._writers[folder].add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[point])))


def _log_mean(t: NDArray[np.float64]) -> float | None:
    """log10 of the geometric mean of t, None at t = 0."""
    mean = finite_mean(np.log10(t)) if (t > 0).all() else math.nan
    return mean if math.isfinite(mean) else None
