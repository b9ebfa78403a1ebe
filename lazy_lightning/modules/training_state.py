"""What observers see of members that are trained by mini-batches: as much of a flow's state as there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.flow.momentum_flow import Trace


@dataclass(frozen=True)
class TrainingState:
    """E members of N weights after a step; fields as of :class:`~lazy_lightning.flow.state.FlowState`."""

    origin: Tensor
    """(E, N) w0."""
    displacement: Tensor
    """(E, N) dw = w - w0."""
    outputs: Tensor
    """(E, n, ...) F on the observed training samples."""
    loss: Tensor
    """(E,) float64 the loss on them, with its 1/alpha^2."""
    loss_start: Tensor
    """(E,) the loss at w0."""
    t: Tensor
    """(E,) float64 the sum of the learning rates."""
    dt: Tensor
    """(E,) float64 the learning rate of the last step."""
    steps: Tensor
    """(E,) int64."""
    reason: Tensor
    """(E,) int8 :class:`~lazy_lightning.flow.stop_reason.StopReason`."""

    @property
    def velocity(self) -> None:
        """The optimizer's own affair."""
        return None

    @property
    def tried(self) -> Tensor:
        """Steps, all of which are taken."""
        return self.steps

    @property
    def accepted(self) -> Tensor:
        """(E,) the same, since every step is accepted."""
        return self.steps

    @property
    def gradient_norm(self) -> Tensor:
        """Unknown: a batch's gradient is not that of the loss."""
        return torch.full_like(self.t, torch.nan)

    @property
    def gradient_change(self) -> Tensor:
        """(E,) NaN: mini-batch training does not compare gradients."""
        return torch.full_like(self.t, torch.nan)

    @property
    def members(self) -> int:
        """The number of members E."""
        return len(self.t)

    @property
    def running(self) -> Tensor:
        """(E,) bool: the members that still train."""
        return self.reason == 0

    def as_trace(self) -> Trace:
        """The trace of the last step."""
        return Trace(self.t.unsqueeze(0), self.loss.unsqueeze(0))
