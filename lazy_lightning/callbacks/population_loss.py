"""The population loss: the loss on samples that are used for nothing else, drawn again at every observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.streams import StreamedTask
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation, Observer

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class PopulationLoss(Observer):
    """Observer of mean ell(F, y) over new samples of a synthetic task, and of the error if the labels are classes.

    The samples of the k-th observation come from a separate random stream, so they neither repeat nor depend on
    interruptions of the run. Members with data seeds are measured on samples of their own tasks, such as the labels of
    their own teachers. Data sets that are not drawn from a distribution are not measured.

    Args:
        samples: number of samples at each observation.

    Raises:
        ConfigError: ``samples`` is less than 1.
    """

    column_names = ("population/loss",)
    needs_shared_inputs = False

    def __init__(self, samples: int = 1000) -> None:
        check_arguments(PopulationLoss, locals())
        if samples < 1:
            raise ConfigError(f"PopulationLoss needs samples >= 1, got {samples}")
        self.samples = samples

    def applies_to(self, module: ObservableModule) -> bool:
        """Returns whether new samples of the data can be drawn."""
        return isinstance(module.data, StreamedTask)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns the columns ``population/loss`` and ``population/error``."""
        assert isinstance(module.data, StreamedTask)  # see applies_to
        fresh = module.resident(module.data_sets.fresh(module.data, self.samples, observation.index))
        outputs = module.centered_outputs(fresh.x)
        columns = {"population/loss": module.loss.per_sample(outputs, fresh.y).mean(dim=-1)}
        if module.task != "regression":
            columns["population/error"] = module.loss.errors(outputs, fresh.y).double().mean(dim=-1)
        return columns
