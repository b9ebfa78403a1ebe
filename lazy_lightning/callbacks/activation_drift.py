"""Distance of the preactivations from their initial values, and their initial velocity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.directional_derivative import directional_derivative

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def rms_drift(now: Tensor, start: Tensor) -> Tensor:
    """Returns the rms over samples and neurons of z_t - z_0, both (E, n, ...), as (E,).

    >>> rms_drift(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 2.0]]]))
    tensor([1.])
    """
    return _rms(now - start)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(dim=1).sqrt()


def initial_velocity(
    preactivations: Callable[[Tensor], dict[str, Tensor]], w0: Tensor, gradient: Tensor
) -> dict[str, Tensor]:
    """Returns the rms over samples and neurons of dz/dt under w' = -grad L at ``w0``, (E,) by layer.

    The derivative takes one forward-mode pass.

    Args:
        preactivations: function of weights (E, N) that returns z (E, n, ...) by layer.
        w0: initial weights (E, N).
        gradient: gradient grad L(w0), (E, N).
    """
    rates: dict[str, Tensor] = directional_derivative(preactivations, w0, -gradient)[1]
    return {layer: _rms(rate) for layer, rate in rates.items()}


def initial_gradient(module: ObservableModule) -> Tensor:
    """Evaluates grad L(w0), (E, N), because the gradient in the state of a resumed run is not at w0."""
    w = module.w0.clone().requires_grad_(True)
    with torch.enable_grad():
        module.objective.backward(w)
    assert w.grad is not None
    return w.grad


class ActivationDrift(NetworkObserver):
    """Observer of rms(z_t - z_0), and of the rms of dz/dt at t = 0, of each layer's preactivations on test samples.

    The drift is ~ 1/(sqrt(h) alpha) in lazy training and of order 1 in feature learning (arXiv:1906.08034). The
    velocity is that of gradient flow, dz/dt = Dz(w0)(-grad L(w0)), also for a flow with momentum, which starts at rest;
    all records contain it. The "preactivation" of the last layer is the output of the network.

    Args:
        samples: number of test samples, for which z_0 is kept on the device.
    """

    needs_shared_inputs = False

    def __init__(self, samples: int = 200) -> None:
        check_arguments(ActivationDrift, locals())
        if samples < 1:
            raise ConfigError(f"ActivationDrift needs samples >= 1, got {samples}")
        self.samples = samples
        self._start: dict[str, Tensor] | None = None
        self._velocity: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns the columns ``activation_drift/LAYER`` and ``activation_velocity/LAYER``."""
        x, buffers = module.test_split.x[: self.samples], module.member_buffers()

        def preactivations(w: Tensor) -> dict[str, Tensor]:
            return module.network.preactivations(w, x, buffers)

        if self._start is None or observation.index == 0:  # computed again after a resume, from w0 and the data
            gradient = initial_gradient(module)  # first, because devices with parts of the samples take part
            self._start = preactivations(module.w0)
            self._velocity = initial_velocity(preactivations, module.w0, gradient)
        now = preactivations(module.w.detach())
        drift = {f"activation_drift/{layer}": rms_drift(z, self._start[layer]) for layer, z in now.items()}
        return drift | {f"activation_velocity/{layer}": speed for layer, speed in self._velocity.items()}
