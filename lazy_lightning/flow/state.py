"""The state of a flow: every member's weights, velocity, gradient and clock, batched over the member axis."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lazy_lightning.flow.stop_reason import StopReason


@dataclass
class FlowState:
    """E members of N weights, at their last accepted step. All tensors are updated in place.

    The weights are kept as ``origin`` and ``displacement``, never as their sum: a lazy member moves by
    ~1/alpha, which float32 would lose beside w0. Clocks are float64 whatever the weights are, because t
    sums thousands of small dt.
    """

    origin: Tensor
    """(E, N) w0."""
    displacement: Tensor
    """(E, N) dw = w - w0."""
    gradient: Tensor
    """(E, N) grad L at w."""
    velocity: Tensor | None
    """(E, N) v, or None for gradient flow, where v = -grad L."""
    outputs: Tensor | None
    """(E, n, ...) F on the training set, if the closure reports it."""
    loss: Tensor
    """(E,) the loss."""
    loss_start: Tensor
    """(E,) the loss at t = 0."""
    gradient_norm: Tensor
    """(E,) float64 ‖grad L‖."""
    gradient_scale: Tensor
    """(E,) float64 the largest ‖grad L‖ so far, or what it would be at w0 without cancellation if that is larger."""
    gradient_change: Tensor
    """(E,) float64 r of the last tried step, accepted or not."""
    t: Tensor
    """(E,) float64 flow time."""
    dt: Tensor
    """(E,) float64 next step size to try."""
    tried: Tensor
    """(E,) int64 tried steps, each one gradient evaluation."""
    accepted: Tensor
    """(E,) int64 accepted steps."""
    reason: Tensor
    """(E,) int8 :class:`StopReason`."""
    milestone: Tensor
    """(E, 4) float64 t, tried steps, loss and ‖grad L‖ after the last burst that made progress, see
    :class:`~lazy_lightning.flow.events.Stalled`."""

    @property
    def members(self) -> int:
        """E."""
        return len(self.t)

    @property
    def running(self) -> Tensor:
        """(E,) bool, on the device."""
        return self.reason == int(StopReason.RUNNING)

    def select(self, rows: Tensor) -> FlowState:
        """A copy of some members' state."""
        return replace(self, **{name: x[rows] for name, x in self.tensors().items() if x is not None})

    def write(self, rows: Tensor, part: FlowState) -> None:
        """Writes a state made by :meth:`select` back to its rows."""
        for name, x in self.tensors().items():
            if x is not None and name not in ("origin", "loss_start"):  # these never change
                x.index_copy_(0, rows, getattr(part, name))

    def copy_from(self, other: FlowState) -> None:
        """Takes the values of a state of the same members, where the own tensors lie."""
        for name, x in self.tensors().items():
            if x is not None and name not in ("origin", "loss_start"):  # these never change
                x.copy_(getattr(other, name))

    def tensors(self) -> dict[str, Tensor | None]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def present_milestone(self) -> Tensor:
        """(E, 4) what :attr:`milestone` becomes when progress is made now."""
        return torch.stack([self.t, self.tried.double(), self.loss.double(), self.gradient_norm], dim=1)

    def weights(self) -> Tensor:
        """(E, N) w = w0 + dw."""
        return torch.add(self.origin, self.displacement)
