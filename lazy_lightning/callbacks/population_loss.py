"""The population loss: the loss on samples that nothing else has seen, new ones at every observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.data.streams import StreamedTask
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation, Observer

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class PopulationLoss(Observer):
    """Mean ell(F, y) over fresh samples of a synthetic task, and the error where the labels are classes.

    The samples of the k-th observation come from a stream of their own, so they neither repeat nor depend on where a
    run was interrupted. On data that are not drawn from a distribution nothing is measured.

    Args:
        samples: how many, at each observation.

    Raises:
        ConfigError: no samples.
    """

    column_names = ("population/loss",)

    def __init__(self, samples: int = 1000) -> None:
        if samples < 1:
            raise ConfigError(f"PopulationLoss needs samples >= 1, got {samples}")
        self.samples = samples

    def applies_to(self, module: ObservableModule) -> bool:
        """Whether the data can be drawn again."""
        return isinstance(module.data, StreamedTask)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """``population/loss``, ``population/error``."""
        fresh = module.resident(module.data.fresh(self.samples, observation.index))  # type: ignore[attr-defined]
        outputs = module.centered_outputs(fresh.x)
        columns = {"population/loss": module.loss.per_sample(outputs, fresh.y).mean(dim=-1)}
        if module.task != "regression":
            columns["population/error"] = module.loss.errors(outputs, fresh.y).double().mean(dim=-1)
        return columns
