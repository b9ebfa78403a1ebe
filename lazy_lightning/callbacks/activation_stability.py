"""Share of the gates of a network's ReLUs and max-pools that are the same as at initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.gates import has_gates
from lazy_lightning.objective.full_batch import chunks, drop_single_output

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def unchanged(now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Counts the gates (E, n, ...) that are the same; returns (E,) float64 by module.

    >>> unchanged({"relu": torch.tensor([[[True, False]]])}, {"relu": torch.tensor([[[True, True]]])})
    {'relu': tensor([1.], dtype=torch.float64)}
    """
    return {name: (gate == start[name]).flatten(1).sum(dim=1).double() for name, gate in now.items()}


class ActivationStability(NetworkObserver):
    """Observer of the share of gates that are the same as at w0, on test samples: near 1 if lazy (arXiv:1812.07956).

    A gate is the sign of a ReLU's input, or the pixel that a max-pool selects, for one sample and position. The
    observer also measures the error of the present weights with all gates frozen at w0, as in the paper's code; a
    network that is *trained* with frozen gates is the companion ``frozen_activations`` of
    :class:`~lazy_lightning.modules.MiniBatchModule`. Networks without gates, or with other nonlinearities, are not
    measured.

    The gates at w0 are computed again at every observation, because they would take as much memory as all activations.

    Args:
        samples: number of test samples.

    Raises:
        ConfigError: ``samples`` is less than 1.
    """

    column_names = ("activation_stability/total",)

    needs_shared_inputs = False

    def __init__(self, samples: int = 200) -> None:
        check_arguments(ActivationStability, locals())
        if samples < 1:
            raise ConfigError(f"ActivationStability needs samples >= 1, got {samples}")
        self.samples = samples

    def applies_to(self, module: ObservableModule) -> bool:
        """Returns whether the network has gates."""
        return super().applies_to(module) and has_gates(module.network.template)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``activation_stability/LAYER``, ``.../total``, and for labels ``.../held_error``."""
        x, y = (part[: self.samples] for part in (module.test_split.x, module.test_split.y))
        w, buffers = module.w.detach(), module.member_buffers()
        same: dict[str, Tensor] = {}
        gates: dict[str, int] = {}
        frozen = []
        for part in chunks(len(x), module.chunk_size):
            now = module.network.gates(w, x[part], buffers)
            for name, count in unchanged(now, module.network.gates(module.w0, x[part], buffers)).items():
                same[name] = same.get(name, 0.0) + count
                gates[name] = gates.get(name, 0) + now[name][0].numel()
            frozen.append(module.network.with_frozen_gates(w, module.w0, x[part], buffers))
        columns = {f"activation_stability/{name}": count / gates[name] for name, count in same.items()}
        columns["activation_stability/total"] = torch.stack(list(same.values())).sum(dim=0) / sum(gates.values())
        if module.task != "regression":
            F = drop_single_output(module.centering(torch.cat(frozen, dim=1), module.initial_outputs(x)))
            columns["activation_stability/held_error"] = module.loss.errors(F, y).double().mean(dim=-1)
        return columns
