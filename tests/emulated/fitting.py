"""Small runs on the host and on the emulated device, whose numbers are to be the same."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fits import digits
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from emulated.accelerator import STRATEGY
from emulated.memory import NAME
from lazy_lightning.callbacks import Curves
from lazy_lightning.data import FlowData
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

HOST, DEVICE = "cpu", NAME
MEMBERS: dict[str, Any] = {"alpha": [0.1, 10.0], "seeds": 2}
APART = StoppingCriteria(loss=0.6, max_steps=20)
"""Members end at different times."""
COARSE = Schedule(max_burst=8, min_burst=4, step_factor=2.0, t_factor=10.0)


def small(**options: Any) -> FlowData:
    return digits(**{"n_train": 16, "n_test": 10, "pca": 4, **options})


def network(**options: Any) -> functools.partial[FC]:
    return functools.partial(FC, **{"width": 5, "depth": 1, **options})


def flow(**options: Any) -> FlowModule:
    return FlowModule(options.pop("network", network()), **{**MEMBERS, "stop": APART, "schedule": COARSE, **options})


def kernel(**options: Any) -> KernelModule:
    return KernelModule(network(), **{**MEMBERS, "stop": APART, "schedule": COARSE, **options})


class ReLUNetwork(nn.Sequential):
    """A network of torch's own modules, with gates and with an integer buffer that all members share."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(*input_shape, 6), nn.ReLU(), nn.Linear(6, 1))
        self.register_buffer("order", torch.arange(input_shape[0]).flip(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.index_select(1, self.order))


def scaled(**options: Any) -> MiniBatchModule:
    companions = ["linearized", "frozen_activations"]
    return MiniBatchModule(
        options.pop("network", ReLUNetwork), **{**MEMBERS, "companions": companions, "loss": "mse", **options}
    )


def trainer(folder: Path | None, device: str, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    """A quiet trainer on a device, with a logger if there is a folder to write to."""
    place = {"accelerator": NAME, "strategy": STRATEGY} if device == NAME else {"accelerator": HOST}
    given = {"precision": "64-true", "max_epochs": -1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    quiet = {
        "enable_checkpointing": any(isinstance(each, Checkpoint) for each in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    logger = False if folder is None else CSVLogger(folder, name="", version="")
    return Trainer(**place, devices=1, logger=logger, callbacks=list(callbacks), **{**given, **quiet, **options})


def fitted(
    folder: Path,
    device: str,
    module: LightningModule,
    callbacks: Sequence[Callback] = (),
    data: FlowData | None = None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> tuple[Trainer, pd.DataFrame]:
    """The trainer after a fit, and the table of the curves."""
    curves = Curves()
    if isinstance(module, MiniBatchModule):
        options = {"max_epochs": 2, **options}
    run = trainer(folder / device, device, [*callbacks, curves], **options)
    data = data or (small(batch_size=8) if isinstance(module, MiniBatchModule) else small())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return run, curves.table(module)


def assert_same_numbers(one: pd.DataFrame, other: pd.DataFrame, rtol: float = 1e-9) -> None:
    """All columns but the wall time, to rounding."""
    assert list(one.columns) == list(other.columns)
    assert len(one) == len(other)
    for name in one.columns.drop("wall"):
        first, second = one[name].to_numpy(), other[name].to_numpy()
        if first.dtype.kind in "fiu":
            size = np.nanmax(np.abs(first), initial=0.0) if np.isfinite(first).any() else 0.0
            np.testing.assert_allclose(second, first, rtol=rtol, atol=rtol * size, err_msg=name)
        else:
            assert (first == second).all(), name
