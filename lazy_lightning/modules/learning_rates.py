"""A learning rate for each alpha, by a short search: no one rate suits a lazy network and one that learns features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.member_groups import Rates, Rows

Batch = tuple[Tensor, Tensor]


class Trainable(Protocol):
    """What a search needs of a module: how its models are trained, from where, on what."""

    models: tuple[str, ...]
    w0: Tensor
    ensemble: Ensemble
    """All members, of whatever rank; ``w0`` and the losses are of those of this process."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors (E, ...) of the members of all ranks, from tensors of this process's members."""

    @property
    def data(self) -> FlowData:
        """Where the batches come from."""

    def on_device(self, *batch: Tensor) -> Batch:
        """A batch, moved there."""

    def losses(self, displacements: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The losses of every member (E,), by model."""

    def total(self, losses: Mapping[str, Tensor], displacements: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses, which is descended."""

    def optimizer_of(self, rows: Rows, rates: Rates) -> Optimizer:
        """The optimizer over these displacements."""


@dataclass(frozen=True)
class LearningRateSearch:
    """Trains every member from its start by each rate for some steps, and takes the best rate of each alpha.

    The best has the least training loss over the last quarter of the steps, averaged over the seeds, on the batches
    that the run itself begins with. A rate at which a member's loss is not finite is out. The paper (arXiv:1812.07956)
    takes the best of four rates by whole trainings.

    Args:
        candidates: learning rates.
        steps: of each trial.

    Raises:
        ConfigError: a rate or the number of steps is not positive.
    """

    candidates: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    steps: int = 100

    def __post_init__(self) -> None:
        check_arguments(LearningRateSearch, vars(self))
        if not self.candidates or min(self.candidates) <= 0:
            raise ConfigError(f"candidates must be learning rates > 0, got {list(self.candidates)}")
        if self.steps < 1:
            raise ConfigError(f"a trial needs steps >= 1, got {self.steps}")

    def search(self, module: Trainable) -> dict[str, list[float]]:
        """The best rate of every member, by model; members of one alpha share theirs."""
        trials = [module.whole(_trial(module, rate, self.steps)) for rate in self.candidates]
        return {name: self.best(torch.stack([t[name] for t in trials]), module.ensemble) for name in trials[0]}

    def best(self, losses: Tensor, ensemble: Ensemble) -> list[float]:
        """From the losses (rates, E) that the trials ended with; the smallest rate where no trial ended well.

        >>> losses = torch.tensor([[9.0, torch.nan], [1.0, 3.0], [2.0, 2.0]])
        >>> LearningRateSearch((1.0, 0.1, 0.01)).best(losses, Ensemble.of([0.1, 10.0], 1))
        [0.1, 0.01]
        """
        finite = torch.where(losses.isfinite(), losses, torch.inf).double().cpu()
        group = ensemble.groups()
        means = torch.stack([finite[:, group == g].mean(dim=1) for g in range(int(group.max()) + 1)], dim=1)
        rates = torch.tensor(self.candidates, dtype=torch.float64)
        chosen = torch.where(means.isfinite().any(dim=0), rates[means.argmin(dim=0)], rates.min())
        return [float(rate) for rate in chosen[group]]


def _trial(module: Trainable, rate: float, steps: int) -> dict[str, Tensor]:
    """The mean loss over the last quarter of the steps, by model; (E,) of the members of this process."""
    rows = {name: [nn.Parameter(row) for row in torch.zeros_like(module.w0)] for name in module.models}
    rates = {name: [rate] * len(module.w0) for name in rows}
    optimizer = module.optimizer_of(rows, rates)
    kept: dict[str, list[Tensor]] = {name: [] for name in rows}
    for x, y in _batches(module, steps):
        optimizer.zero_grad()
        displacements = {name: torch.stack(tuple(row)) for name, row in rows.items()}
        losses = module.losses(displacements, x, y)
        module.total(losses, displacements).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, loss in losses.items():
            kept[name].append(loss.detach())
    return {name: torch.stack(values[-max(1, steps // 4) :]).mean(dim=0) for name, values in kept.items()}


def _batches(module: Trainable, steps: int) -> Iterable[Batch]:
    """The first that the run will see, over as many epochs as it takes."""
    batches = module.data.training_batches()
    epoch = 0
    while steps > 0:
        for batch in batches.epoch(epoch):
            if steps > 0:
                yield module.on_device(*batch)
            steps -= 1
        epoch += 1


def format_rates(rates: Mapping[str, Sequence[float]], ensemble: Ensemble) -> str:
    """The rates by model and alpha, in a line each.

    >>> format_rates({"network": [0.1, 0.1, 1.0, 1.0]}, Ensemble.of([0.5, 2.0], 2))
    'learning rates of the network: 0.1 at alpha = 0.5, 1 at alpha = 2'
    """
    if ensemble.data_seeds is None:
        who = [f"alpha = {alpha:g}" for alpha in ensemble.alphas]
    else:
        members = zip(ensemble.alphas, ensemble.data_seeds, strict=True)
        who = [f"alpha = {alpha:g} of data seed {seed}" for alpha, seed in members]
    lines = []
    for name, values in rates.items():
        found = dict(zip(who, values, strict=True))
        listed = ", ".join(f"{rate:g} at {one}" for one, rate in found.items())
        lines.append(f"learning rates of the {name.replace('_', ' ')}: {listed}")
    return "\n".join(lines)
