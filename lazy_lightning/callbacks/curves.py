"""The curves of a run: every observation of every member as one float64 table."""

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

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.pace import Pace
from lazy_lightning.callbacks.python_config import write_python_config
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.modules.observation import Record, Sink
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import CURVES

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class Curves(Sink):
    """Sink that keeps all columns of all observations and writes them to ``curves.parquet`` in the run's folder.

    The table has one row for each observation and member, with its seed and alpha; a member that has stopped keeps its
    last values. Losses are mean ell(F, y), without the 1/alpha^2 of the flow.

    Args:
        every_seconds: interval between writes during the run; the end of the run is always written.
    """

    def __init__(self, every_seconds: float = 20.0) -> None:
        check_arguments(Curves, locals())
        self.every_seconds = every_seconds
        self.records: list[Record] = []
        self._pace = Pace(every_seconds)

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Keeps the record, and writes the table if the interval has passed."""
        if record.index == 0:
            self.records = []
        self.records.append(record)
        if self._pace.is_due():
            self.write(trainer, module)

    def table(self, module: ObservableModule) -> pd.DataFrame:
        """Returns all observations in long form."""
        members, observations = len(module.ensemble), len(self.records)
        columns, data_seeds = stacked(self.records), module.ensemble.data_seeds
        return pd.DataFrame(
            {
                "observation": np.repeat([record.index for record in self.records], members),
                "member": np.tile(np.arange(members), observations),
                "alpha": np.tile(module.ensemble.alphas, observations),
                "seed": np.tile(module.ensemble.seeds, observations),
                **({} if data_seeds is None else {"data_seed": np.tile(data_seeds, observations)}),
                "wall": np.repeat([record.wall for record in self.records], members),
                **{name: column.reshape(-1) for name, column in columns.items()},
            }
        )

    def write(self, trainer: Trainer, module: ObservableModule) -> Path | None:
        """Writes the table atomically and returns its path; a failure is reported and does not end the run."""
        if trainer.log_dir is None or not self.records or not trainer.is_global_zero:
            return None
        write_python_config(trainer, module)
        path = Path(trainer.log_dir) / CURVES
        with self._pace.measured(), warn_if_unwritten(module, path), written_atomically(path) as temporary:
            self.table(module).to_parquet(temporary, index=False, engine="pyarrow", write_page_checksum=True)
        return path

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes the table at the end, also after a signal."""
        self.write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Writes the observations made before an error or Ctrl-C."""
        self.write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Returns the observations for the checkpoint, as one array (observations, members) for each column."""
        return {
            "index": torch.tensor([record.index for record in self.records], dtype=torch.int64),
            "wall": torch.tensor([record.wall for record in self.records], dtype=torch.float64),
            "columns": {name: torch.from_numpy(column) for name, column in stacked(self.records).items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the observations from a checkpoint, so that the resumed run's table starts at t = 0.

        Raises:
            ValueError: the arrays do not have the same number of observations.
        """
        index, wall, columns = state_dict["index"], state_dict["wall"], state_dict["columns"]
        if isinstance(columns, list):  # written by version 0.1.0: one mapping for each observation
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
    """Returns the values (observations, members) by column; NaN where an observation does not have the column."""
    names = dict.fromkeys(name for record in records for name in record.columns)
    members = len(next(iter(records[0].columns.values()))) if records else 0
    absent = np.full(members, np.nan)
    return {name: np.stack([record.columns.get(name, absent) for record in records]) for name in names}


def _array(column: Tensor) -> NDArray[np.float64]:
    return np.asarray(column.cpu().numpy(), dtype=np.float64)
