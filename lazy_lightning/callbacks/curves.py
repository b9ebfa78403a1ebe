"""The run's record: every observation of every member, as one float64 table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lazy_lightning.atomic import written_atomically
from lazy_lightning.observation import Record, Sink
from lazy_lightning.run_files import CURVES

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule


class Curves(Sink):
    """Keeps all columns of all observations and writes them to ``curves.parquet`` in the run's folder.

    One row for each observation and member, with its seed and alpha; a member that has stopped keeps its last
    values. Losses are mean ell(F, y), without the 1/alpha^2 of the flow.

    Args:
        every_seconds: how often to write while the run goes on; the end is always written.
    """

    def __init__(self, every_seconds: float = 20.0) -> None:
        self.every_seconds = every_seconds
        self.records: list[Record] = []
        self._written = time.monotonic()

    def record(self, trainer: Trainer, module: FlowModule, record: Record) -> None:
        """Keeps it, and writes when it is time."""
        if record.index == 0:
            self.records = []
        self.records.append(record)
        if time.monotonic() - self._written > self.every_seconds:
            self.write(trainer, module)

    def table(self, module: FlowModule) -> pd.DataFrame:
        """All that has been observed, in long form."""
        members = len(module.roster)
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "observation": np.full(members, record.index),
                        "member": np.arange(members),
                        "alpha": module.roster.alphas,
                        "seed": module.roster.seeds,
                        "wall": np.full(members, record.wall),
                        **record.columns,
                    }
                )
                for record in self.records
            ],
            ignore_index=True,
        )

    def write(self, trainer: Trainer, module: FlowModule) -> Path | None:
        """Writes the table, whole or not at all."""
        self._written = time.monotonic()
        if trainer.log_dir is None or not self.records or not trainer.is_global_zero:
            return None
        path = Path(trainer.log_dir) / CURVES
        with written_atomically(path) as temporary:
            self.table(module).to_parquet(temporary, index=False)
        return path

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes the end, also after a signal."""
        self.write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """What was observed before an error or Ctrl-C is kept."""
        self.write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint, as plain tensors."""
        return {
            "index": [record.index for record in self.records],
            "wall": [record.wall for record in self.records],
            "columns": [
                {name: torch.from_numpy(column.copy()) for name, column in record.columns.items()}
                for record in self.records
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint: the resumed run's table begins at its true start."""
        self.records = [
            Record(index, wall, False, {name: _array(column) for name, column in columns.items()})
            for index, wall, columns in zip(state_dict["index"], state_dict["wall"], state_dict["columns"], strict=True)
        ]


def _array(column: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(column.cpu().numpy(), dtype=np.float64)
