"""How far the preactivations have moved from initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.observation import Observation, Observer

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule


def rms_drift(now: Tensor, start: Tensor) -> Tensor:
    """rms over samples and neurons of z_t - z_0, (E, n, ...) each to (E,).

    >>> rms_drift(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 2.0]]]))
    tensor([1.])
    """
    return (now - start).flatten(1).square().mean(dim=1).sqrt()


class ActivationDrift(Observer):
    """rms(z_t - z_0) of each layer's preactivations on test samples.

    ~ 1/(sqrt(h) alpha) when lazy, of order 1 when features are learnt (arXiv:1906.08034). The last layer's
    "preactivation" is the network's output.

    Args:
        samples: how many test samples to look at; z_0 is kept on the device for these.
    """

    def __init__(self, samples: int = 200) -> None:
        if samples < 1:
            raise ConfigError(f"ActivationDrift needs samples >= 1, got {samples}")
        self.samples = samples
        self._start: dict[str, Tensor] | None = None

    @torch.no_grad()
    def observe(self, module: FlowModule, observation: Observation) -> Mapping[str, Tensor]:
        """``activation_drift/LAYER``."""
        x, buffers = module.test_split.x[: self.samples], module.member_buffers()
        if self._start is None:  # also after a resume
            self._start = module.network.preactivations(module.w0, x, buffers)
        now = module.network.preactivations(module.w.detach(), x, buffers)
        return {f"activation_drift/{layer}": rms_drift(z, self._start[layer]) for layer, z in now.items()}
