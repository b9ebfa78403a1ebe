"""TensorBoard scalars, against the observation count and against the flow time t."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from lazy_lightning.observation import Record, Sink, finite_mean

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from lazy_lightning.modules.flow_module import FlowModule


class TensorBoardScalars(Sink):
    """Means over the members of each alpha, ``COLUMN/alpha=A``, with the observation as step.

    The same under ``against_t/`` with step = 1000 log10(t), because TensorBoard's horizontal axis is an integer:
    0 is t = 1 and 3000 is t = 1000.

    Args:
        against_t: write the second set.
    """

    def __init__(self, against_t: bool = True) -> None:
        self.against_t = against_t

    def record(self, trainer: Trainer, module: FlowModule, record: Record) -> None:
        """Writes to every TensorBoard logger of the trainer."""
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        alphas = np.asarray(module.roster.alphas)
        for alpha in dict.fromkeys(module.roster.alphas):
            chosen = alphas == alpha
            t = _log_mean(record.columns["t"][chosen])
            for name, column in record.columns.items():
                value = finite_mean(column[chosen])
                if math.isfinite(value):
                    for writer in writers:
                        self._write(writer, f"{name}/alpha={alpha:g}", value, record.index, t)

    def _write(self, writer: SummaryWriter, tag: str, value: float, index: int, t: float | None) -> None:
        writer.add_scalar(tag, value, index)
        if self.against_t and t is not None:
            writer.add_scalar(f"against_t/{tag}", value, round(1000 * t))


def _log_mean(t: NDArray[np.float64]) -> float | None:
    """log10 of the geometric mean of t, None at t = 0."""
    mean = finite_mean(np.log10(t)) if (t > 0).all() else math.nan
    return mean if math.isfinite(mean) else None
