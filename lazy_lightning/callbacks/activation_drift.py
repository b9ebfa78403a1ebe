"""How far the preactivations have moved from initialisation, and how fast they set out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.directional_derivative import directional_derivative

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def rms_drift(now: Tensor, start: Tensor) -> Tensor:
    """rms over samples and neurons of z_t - z_0, (E, n, ...) each to (E,).

    >>> rms_drift(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 2.0]]]))
    tensor([1.])
    """
    return _rms(now - start)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(dim=1).sqrt()


def initial_velocity(
    preactivations: Callable[[Tensor], dict[str, Tensor]], w0: Tensor, gradient: Tensor
) -> dict[str, Tensor]:
    """rms over samples and neurons of dz/dt under w' = -grad L at ``w0``, (E,) by layer: one forward-mode pass.

    Args:
        preactivations: maps weights (E, N) to z (E, n, ...) by layer.
        w0: (E, N).
        gradient: (E, N) grad L(w0).
    """
    rates: dict[str, Tensor] = directional_derivative(preactivations, w0, -gradient)[1]
    return {layer: _rms(rate) for layer, rate in rates.items()}


def initial_gradient(module: ObservableModule) -> Tensor:
    """(E, N) grad L(w0), evaluated: the state's own gradient has moved on when a run is resumed."""
    w = module.w0.clone().requires_grad_(True)
    with torch.enable_grad():
        module.objective.backward(w)
    assert w.grad is not None
    return w.grad


class ActivationDrift(NetworkObserver):
    """rms(z_t - z_0) and the rms of dz/dt at t = 0 of each layer's preactivations, on test samples.

    The drift is ~ 1/(sqrt(h) alpha) when lazy, of order 1 when features are learnt (arXiv:1906.08034). The velocity
    is that of gradient flow, dz/dt = Dz(w0)(-grad L(w0)), also where momentum is followed, which starts at rest;
    all records carry it. The last layer's "preactivation" is the network's output.

    Args:
        samples: how many test samples to look at; z_0 is kept on the device for these.
    """

    def __init__(self, samples: int = 200) -> None:
        if samples < 1:
            raise ConfigError(f"ActivationDrift needs samples >= 1, got {samples}")
        self.samples = samples
        self._start: dict[str, Tensor] | None = None
        self._velocity: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """``activation_drift/LAYER``, ``activation_velocity/LAYER``."""
        x, buffers = module.test_split.x[: self.samples], module.member_buffers()

        def preactivations(w: Tensor) -> dict[str, Tensor]:
            return module.network.preactivations(w, x, buffers)

        if self._start is None or observation.index == 0:  # also after a resume: both follow from w0 and the data
            gradient = initial_gradient(module)  # first: devices that hold slices evaluate it together
            self._start = preactivations(module.w0)
            self._velocity = initial_velocity(preactivations, module.w0, gradient)
        now = preactivations(module.w.detach())
        drift = {f"activation_drift/{layer}": rms_drift(z, self._start[layer]) for layer, z in now.items()}
        return drift | {f"activation_velocity/{layer}": speed for layer, speed in self._velocity.items()}
