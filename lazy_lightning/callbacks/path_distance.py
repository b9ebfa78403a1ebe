"""How far the path of the network's outputs is from that of its linearisation, both followed side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lazy_lightning.modules.kernel_objective import KernelObjective
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.ntk.frozen_kernel import frozen_kernels
from lazy_lightning.objective import drop_single_output
from lazy_lightning.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule

_STEPS = 50


def rms_distance(outputs: Tensor, others: Tensor) -> Tensor:
    """rms over samples and outputs of F - F', (E, n, ...) each to (E,) float64.

    >>> rms_distance(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 0.0]])) ** 2
    tensor([4.5000], dtype=torch.float64)
    """
    return (outputs.double() - others.double()).flatten(1).square().mean(dim=1).sqrt()


class PathDistance(NetworkObserver):
    """‖F_t - F_lin,t‖ on the training samples at each observation, and its largest value so far.

    F_lin is trained beside the network from the same start, by the same flow and loss, as a flow on the tangent kernel
    at w0 (its linearisation, exactly); each member's companion lands on that member's t. A lazy path stays within
    ~ 1/alpha of it (arXiv:1812.07956). Unlike :class:`TangentDeparture`, which asks what the linearisation makes of the
    weights that the network has reached, this compares two trainings.

    Costs n c numbers and their square a member in memory, one decomposition of the kernel at the start, and two
    products with that matrix a step.
    """

    def __init__(self) -> None:
        self._companion: _Companion | None = None
        self._largest: Tensor | None = None
        self._saved: dict[str, Any] | None = None

    @torch.no_grad()
    def observe(self, module: FlowModule, observation: Observation) -> Mapping[str, Tensor]:
        """``path_distance/rms`` and ``path_distance/sup``."""
        state = observation.state
        if self._companion is None or observation.index == 0:
            self._companion = _Companion(module, self._saved if observation.index else None)
            self._saved = None
        assert state.outputs is not None  # our closure always reports them
        distance = rms_distance(state.outputs, self._companion.outputs_at(state.t))
        largest = distance if self._largest is None or observation.index == 0 else self._largest.to(distance.device)
        self._largest = torch.maximum(distance, largest)
        return {"path_distance/rms": distance, "path_distance/sup": self._largest}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the companion goes on to the bit, too."""
        if self._companion is None:
            return {}
        return {"flow": self._companion.flow.state_dict(), "largest": self._largest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        if state_dict:
            self._saved, self._largest = state_dict["flow"], state_dict["largest"]


class _Companion:
    """The flow of the linearised members on the training samples."""

    def __init__(self, module: FlowModule, saved: dict[str, Any] | None) -> None:
        x, outputs = module.train_split.x, module.data.num_outputs
        kernel = frozen_kernels(module.network, module.w0, module.member_buffers(), x, None, outputs=outputs)
        alpha = module.centering.alpha.to(kernel.device)
        f0 = None if module.centering.enabled else module.raw_outputs(module.w0, x) * module.centering.column(x.dtype)
        self.objective = KernelObjective(
            KernelFeatures.of(kernel).train, f0, alpha, module.loss, module.train_split.y, outputs, False
        )
        self.v = nn.Parameter(kernel.new_zeros(kernel.shape[:2]))
        self.flow = module.companion_flow(self.v, steps=_STEPS)
        if saved is not None:
            self.flow.load_state_dict(saved)

    def outputs_at(self, t: Tensor) -> Tensor:
        """F_lin at each member's time, (E, n) or (E, n, c)."""
        self.flow.advance(t, lambda: self.objective.backward(self.v))
        outputs = self.flow.flow.outputs
        assert outputs is not None  # the objective reports them
        return drop_single_output(outputs)
