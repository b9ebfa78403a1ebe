"""Small fits of which the test chooses the observers, and what they saw, to be computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import fits
import pandas as pd
import pytest
import torch
from fits import Fit, digits, fit
from pytorch_lightning import Callback
from torch import Tensor, nn

from lazy_lightning.callbacks import RunCheckpoint
from lazy_lightning.data import FlowData
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.modules.observation import Observer

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
APART = {**MEMBERS, "stop": StoppingCriteria(loss=0.5, max_steps=400)}
"""Members that stop at different times."""


class Moment(NamedTuple):
    t: Tensor
    w: Tensor
    outputs: Tensor
    running: Tensor


class Seen(Observer):
    """What the state was at each observation."""

    needs_shared_inputs = False

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def observe(self, module, observation):
        s = observation.state
        self.moments.append(Moment(s.t.clone(), module.w.detach().clone(), s.outputs.clone(), s.running))
        return {}


class Poison(Observer):
    """Lets one member's weights be NaN where observers look, from some observation on."""

    def observe(self, module, observation):
        if observation.index >= 3:
            module.w.data[1] = torch.nan
        return {}


class Scaled(nn.Module):
    """A network of torch's own layers, with a buffer of each seed's own and a layer without structure."""

    def __init__(self, input_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(*input_shape, 5), nn.LayerNorm(5), nn.Tanh())
        self.head = nn.Linear(5, 1)
        self.register_buffer("scale", 1 + torch.rand(()))

    def forward(self, x):
        return self.head(self.layers(self.scale * x))


def small(**options) -> FlowData:
    """Few samples of few inputs."""
    return digits(**{"n_train": 20, "n_test": 12, "pca": 4, **options})


def watch(folder: Path, *callbacks: Callback, model=None, data: FlowData | None = None, **options) -> Fit:
    """A fit with these observers alone."""
    if model is None and "network" not in options:
        options["network"] = {"width": 6, "depth": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "observers", list)
        return fit(folder, model, data or small(), callbacks, **options)


def column(table: pd.DataFrame, name: str, observation: int) -> Tensor:
    """(E,) of one observation."""
    return torch.tensor(table[table.observation == observation][name].to_numpy())


def last(run: Fit, name: str) -> Tensor:
    """(E,) at the last observation."""
    return torch.tensor(run.last(name), dtype=torch.float64)


class StopAt(Callback):
    """Asks the trainer to stop after some bursts."""

    def __init__(self, bursts: int) -> None:
        self.left = bursts

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        trainer.should_stop = trainer.should_stop or self.left == 0


def interrupted(folder: Path, observers: Callable[[], Sequence[Callback]], bursts: int = 6, **options) -> Fit:
    """The second of two sessions, as :func:`watch`."""
    watch(folder / "first", *observers(), StopAt(bursts), RunCheckpoint(), **options)
    return watch(folder / "second", *observers(), ckpt_path=folder / "first/checkpoint.ckpt", **options)


def prolonged(folder: Path, observers: Callable[[], Sequence[Callback]], *, between: int = 0, **options) -> Fit:
    """A run ended by a limit on its steps, opened ``between`` times without going on, and then with a higher limit."""
    watch(folder / "0", *observers(), RunCheckpoint(), **options, stop=StoppingCriteria(max_steps=15))
    for i in range(between):
        path = folder / f"{i}/checkpoint.ckpt"
        watch(
            folder / f"{i + 1}",
            *observers(),
            RunCheckpoint(),
            **options,
            stop=StoppingCriteria(max_steps=15),
            ckpt_path=path,
        )
    path = folder / f"{between}/checkpoint.ckpt"
    return watch(folder / "last", *observers(), **options, stop=StoppingCriteria(max_steps=40), ckpt_path=path)
