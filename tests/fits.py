"""Small fits through a plain Trainer, without the command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lazy_lightning.callbacks import T1, ActivationDrift, ClosingSummary, Curves, TangentDeparture, WeightDisplacement
from lazy_lightning.data import Digits, FlowData
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

NOT_NUMBERS_OF_THE_FLOW = ["wall"]


class Fit(NamedTuple):
    trainer: Trainer
    module: FlowModule
    folder: Path
    table: pd.DataFrame

    def last(self, column: str) -> list[float]:
        """The members' values at the last observation."""
        return self.table[self.table.observation == self.table.observation.max()][column].tolist()


def digits(**options) -> Digits:
    return Digits(**{"n_train": 60, "n_test": 50, **options})


def module(**options) -> FlowModule:
    given = {"width": 12, "depth": 2} | options.pop("network", {})
    return FlowModule(functools.partial(FC, **given), **{"stop": StoppingCriteria(max_steps=60), **options})


def observers() -> list[Callback]:
    return [WeightDisplacement(), ActivationDrift(samples=20), T1(), TangentDeparture(samples=20)]


def fit(
    folder: Path,
    model: FlowModule | None = None,
    data: FlowData | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    precision: str = "64-true",
    ckpt_path: Path | None = None,
    **options,
) -> Fit:
    """Fits, with all observers and a table of curves."""
    model = model or module(**options)
    curves = Curves()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision,
        max_epochs=-1,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[*observers(), curves, *callbacks],
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=data or digits(), ckpt_path=ckpt_path, weights_only=True)
    return Fit(trainer, model, folder, curves.table(model))


def members_at_the_end(module: FlowModule, data: FlowData, folder: Path, callbacks: Sequence[Callback]) -> pd.DataFrame:
    """The last values of every member from the run's summary, none of them failed."""
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        logger=TensorBoardLogger(folder, default_hp_metric=False),
        callbacks=[*callbacks, Curves(), ClosingSummary()],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    summary = json.loads((Path(trainer.log_dir or "") / "summary.json").read_text())
    table = pd.DataFrame(summary["members"])
    assert not table["failed"].any()
    return table


def assert_same_curves(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """All numbers of the flow, to the bit."""
    pd.testing.assert_frame_equal(
        one.drop(columns=NOT_NUMBERS_OF_THE_FLOW), other.drop(columns=NOT_NUMBERS_OF_THE_FLOW), check_exact=True
    )


LONG_AND_COARSE = Schedule(max_burst=100, min_burst=20, step_factor=2.0, t_factor=100.0)
