"""Any optimizer of torch over the members: each is one flat parameter, in a group of its own with its own rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lazy_lightning.errors import ConfigError

Rows = Mapping[str, Sequence[nn.Parameter]]
"""By model, a parameter (N,) a member."""
Rates = Mapping[str, Sequence[float]]
"""By model, a learning rate a member."""

_COUPLING = ("LBFGS", "Adafactor", "Muon", "SparseAdam")
"""They need a closure or sparse gradients, or use a tensor's shape, which a flat row does not have."""


def probe(build: OptimizerCallable) -> Optimizer:
    """The optimizer over one number, to see what it is.

    Raises:
        ConfigError: it refuses its arguments.
    """
    try:
        return build([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the optimizer refuses its arguments ({error}): see --model.optimizer") from error


def default_rate(optimizer: Optimizer) -> float:
    """The learning rate that an optimizer comes with.

    Raises:
        ConfigError: the optimizer would not treat a member as it treats a network.
    """
    name = type(optimizer).__name__
    if name in _COUPLING:
        raise ConfigError(
            f"the optimizer {name} does not act entry by entry on a member's flat weights: choose SGD, Adam, AdamW or "
            "another that does"
        )
    return float(optimizer.param_groups[0]["lr"])


def require_schedule(scheduler: object) -> None:
    """Raises ConfigError for a schedule that depends on a loss."""
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            "ReduceLROnPlateau looks at one loss, which members of several alphas do not have: choose a schedule of "
            "epochs or steps, such as lazy_lightning.modules.inverse_decay.InverseDecay"
        )


def optimizer_of(build: OptimizerCallable, rows: Rows, rates: Rates) -> Optimizer:
    """The optimizer with a group for each row, in the order of the models."""
    return build(
        [
            {"params": [row], "lr": rate}
            for name, members in rows.items()
            for row, rate in zip(members, rates[name], strict=True)
        ]
    )


def present_rates(optimizer: Optimizer, models: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The learning rates (E,) by model."""
    rates = np.array([float(group["lr"]) for group in optimizer.param_groups])
    return dict(zip(models, np.split(rates, len(models)), strict=True))


def clip_each(rows: Iterator[nn.Parameter], value: float, algorithm: str | None) -> None:
    """Clips the gradient of every member by itself: by its norm, or entry by entry for ``value``."""
    clip = nn.utils.clip_grad_value_ if algorithm == "value" else nn.utils.clip_grad_norm_
    for row in rows:
        clip([row], value)
