"""The run's record: every observation of every member, as one float64 table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor

from lazy_lightning.callbacks.pace import Pace
from lazy_lightning.callbacks.python_config import write_python_config
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.modules.observation import Record, Sink
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import CURVES

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


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
        self._pace = Pace(every_seconds)

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Keeps it, and writes when it is time."""
        if record.index == 0:
            self.records = []
        self.records.append(record)
        if self._pace.is_due():
            self.write(trainer, module)

    def table(self, module: ObservableModule) -> pd.DataFrame:
        """All that has been observed, in long form."""
        members, observations = len(module.ensemble), len(self.records)
        columns = stacked(self.records)
        return pd.DataFrame(
            {
                "observation": np.repeat([record.index for record in self.records], members),
                "member": np.tile(np.arange(members), observations),
                "alpha": np.tile(module.ensemble.alphas, observations),
                "seed": np.tile(module.ensemble.seeds, observations),
                "wall": np.repeat([record.wall for record in self.records], members),
                **{name: column.reshape(-1) for name, column in columns.items()},
            }
        )

    def write(self, trainer: Trainer, module: ObservableModule) -> Path | None:
        """Writes the table, whole or not at all; a disk that refuses it costs this file alone."""
        if trainer.log_dir is None or not self.records or not trainer.is_global_zero:
            return None
        write_python_config(trainer, module)
        path = Path(trainer.log_dir) / CURVES
        with self._pace.measured(), warn_if_unwritten(module, path), written_atomically(path) as temporary:
            self.table(module).to_parquet(temporary, index=False, engine="pyarrow", write_page_checksum=True)
        return path

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes the end, also after a signal."""
        self.write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """What was observed before an error or Ctrl-C is kept."""
        self.write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: one array (observations, members) a column."""
        return {
            "index": torch.tensor([record.index for record in self.records], dtype=torch.int64),
            "wall": torch.tensor([record.wall for record in self.records], dtype=torch.float64),
            "columns": {name: torch.from_numpy(column) for name, column in stacked(self.records).items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint: the resumed run's table begins at its true start.

        Raises:
            ValueError: the arrays do not have the same number of observations.
        """
        index, wall, columns = state_dict["index"], state_dict["wall"], state_dict["columns"]
        if isinstance(columns, list):  # of version 0.1.0: a mapping an observation
            self.records = [
                Record(int(i), float(w), False, {name: _array(column) for name, column in part.items()})
                for i, w, part in zip(index, wall, columns, strict=True)
            ]
            return
        arrays = {name: _array(column) for name, column in columns.items()}
        self.records = [
            Record(i, w, False, dict(zip(arrays, rows, strict=True)))
            for i, w, *rows in zip(index.tolist(), wall.tolist(), *arrays.values(), strict=True)
        ]


def stacked(records: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    """By column, its values (observations, members); NaN where an observation does not have it."""
    names = dict.fromkeys(name for record in records for name in record.columns)
    members = len(next(iter(records[0].columns.values()))) if records else 0
    absent = np.full(members, np.nan)
    return {name: np.stack([record.columns.get(name, absent) for record in records]) for name in names}


def _array(column: Tensor) -> NDArray[np.float64]:
    return np.asarray(column.cpu().numpy(), dtype=np.float64)
