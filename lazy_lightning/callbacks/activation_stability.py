"""How many of a network's ReLUs and max-pools still choose as they did at initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.gates import has_gates
from lazy_lightning.objective.full_batch import chunks, drop_single_output

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def unchanged(now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How many gates (E, n, ...) are the same, (E,) float64 by module.

    >>> unchanged({"relu": torch.tensor([[[True, False]]])}, {"relu": torch.tensor([[[True, True]]])})
    {'relu': tensor([1.], dtype=torch.float64)}
    """
    return {name: (gate == start[name]).flatten(1).sum(dim=1).double() for name, gate in now.items()}


class ActivationStability(NetworkObserver):
    """The share of gates that are as at w0, on test samples: near 1 when lazy (arXiv:1812.07956).

    A gate is which side of zero a ReLU is on, or which pixel a max-pool takes, for one sample and place. Beside it, the
    error of the network's present weights with all gates held at w0, as the paper's code has it; the network that is
    *trained* so is the companion ``frozen_activations`` of :class:`~lazy_lightning.modules.MiniBatchModule`. On a
    network without gates, or with other nonlinearities, nothing is measured.

    Gates at w0 are found anew at every observation: keeping them would take as much memory as all activations.

    Args:
        samples: how many test samples to look at.

    Raises:
        ConfigError: no samples.
    """

    column_names = ("activation_stability/total",)

    def __init__(self, samples: int = 200) -> None:
        if samples < 1:
            raise ConfigError(f"ActivationStability needs samples >= 1, got {samples}")
        self.samples = samples

    def applies_to(self, module: ObservableModule) -> bool:
        """Whether there are gates."""
        return super().applies_to(module) and has_gates(module.network.template)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """``activation_stability/LAYER``, ``.../total``, and ``.../held_error`` of labels."""
        x, y = (part[: self.samples] for part in (module.test_split.x, module.test_split.y))
        w, buffers = module.w.detach(), module.member_buffers()
        same: dict[str, Tensor] = {}
        places: dict[str, int] = {}
        held = []
        for part in chunks(len(x), module.chunk_size):
            now = module.network.gates(w, x[part], buffers)
            for name, count in unchanged(now, module.network.gates(module.w0, x[part], buffers)).items():
                same[name] = same.get(name, 0.0) + count
                places[name] = places.get(name, 0) + now[name][0].numel()
            held.append(module.network.with_frozen_gates(w, module.w0, x[part], buffers))
        columns = {f"activation_stability/{name}": count / places[name] for name, count in same.items()}
        columns["activation_stability/total"] = torch.stack(list(same.values())).sum(dim=0) / sum(places.values())
        if module.task != "regression":
            F = drop_single_output(module.centering(torch.cat(held, dim=1), module.initial_outputs(x)))
            columns["activation_stability/held_error"] = module.loss.errors(F, y).double().mean(dim=-1)
        return columns
