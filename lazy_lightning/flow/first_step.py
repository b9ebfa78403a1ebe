"""The first step size of an integrator with error control, from the loss and the gradient at the start."""

from __future__ import annotations

import torch
from torch import Tensor

from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState


def time_of_first_fall(state: FlowState, rule: StepRule) -> Tensor:
    """(E,) float64 the time in which the loss falls by a hundredth at its initial rate, at most the state's dt."""
    loss, slope = state.loss.double(), state.gradient_norm.square()
    first = 0.01 * loss / slope
    if state.velocity is not None:
        tau = rule.memory_time(first)
        inertial = (0.02 * tau * loss / slope).sqrt()  # at v = 0 the loss falls by ‖g‖^2 t^2 / (2 tau)
        first = torch.where(tau > 0, torch.minimum(torch.maximum(first, inertial), tau), first)
    return torch.where(first > 0, torch.minimum(first, state.dt), state.dt)
