"""The state of a flow: every member's weights, velocity, gradient and clock, batched over the member axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

MEMORY = "memory."
"""Before the names of the integrator's tensors in :meth:`FlowState.tensors`."""


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
    """(E,) int64 evaluations of the gradient, which for Euler are the tried steps."""
    accepted: Tensor
    """(E,) int64 accepted steps."""
    reason: Tensor
    """(E,) int8 :class:`StopReason`."""
    milestone: Tensor
    """(E, 4) float64 t, tried steps, loss and ‖grad L‖ after the last burst that made progress, see
    :class:`~lazy_lightning.flow.events.Stalled`."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """(E, ...) each: what the integrator carries from one attempt to the next, by name."""

    @property
    def members(self) -> int:
        """The number of members E."""
        return len(self.t)

    @property
    def running(self) -> Tensor:
        """(E,) bool, on the device."""
        return self.reason.logical_not()  # RUNNING is 0

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FlowState:
        """The state whose :meth:`tensors` these are; velocity and outputs may be left out."""
        plain = {name: x for name, x in tensors.items() if not name.startswith(MEMORY)}
        memory = {name.removeprefix(MEMORY): x for name, x in tensors.items() if name.startswith(MEMORY)}
        missing: dict[str, Any] = {"velocity": None, "outputs": None}
        return cls(**{**missing, **plain}, memory=memory)

    def select(self, rows: Tensor, prefix: str = "") -> FlowState:
        """A copy of some members' state; with a prefix, of the memory under it alone, and without it."""
        there = MEMORY + prefix
        return FlowState.from_tensors(
            {
                name.replace(there, MEMORY, 1): x[rows]
                for name, x in self.tensors().items()
                if not name.startswith(MEMORY) or name.startswith(there)
            }
        )

    def snapshot(self) -> FlowState:
        """A copy without the integrator's memory, which does not change with the flow; ``origin`` is shared."""
        own = {name: x.clone() for name, x in self._changing() if not name.startswith(MEMORY)}
        return replace(self, memory={}, loss_start=self.loss_start.clone(), **own)

    def write(self, rows: Tensor, part: FlowState, prefix: str = "") -> None:
        """Writes a state made by :meth:`select` back to its rows."""
        given = part.tensors()
        for name, x in self._changing():
            short = name.replace(MEMORY + prefix, MEMORY, 1)
            if not name.startswith(MEMORY) or name.startswith(MEMORY + prefix):
                x.index_copy_(0, rows, given[short])

    def copy_from(self, other: FlowState) -> None:
        """Takes the values of a state of the same members, in place."""
        given = other.tensors()
        for name, x in self._changing():
            x.copy_(given[name])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that it has by name, those of the integrator's memory as ``memory.NAME``."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "memory"}
        memory = {MEMORY + name: x for name, x in self.memory.items()}
        return {name: x for name, x in (plain | memory).items() if x is not None}

    def _changing(self) -> list[tuple[str, Tensor]]:
        return [(name, x) for name, x in self.tensors().items() if name not in ("origin", "loss_start")]

    def present_milestone(self) -> Tensor:
        """(E, 4) what :attr:`milestone` becomes when progress is made now."""
        return torch.stack([self.t, self.tried.double(), self.loss.double(), self.gradient_norm], dim=1)

    def weights(self) -> Tensor:
        """(E, N) w = w0 + dw."""
        return torch.add(self.origin, self.displacement)
