"""How far a step has changed the gradient, and whether a gradient is more than rounding errors."""

from __future__ import annotations

import torch
from torch import Tensor

from lazy_lightning.flow.known_masks import holds_for_all
from lazy_lightning.flow.state import FlowState

_NOISE, _JUMP = 0.02, 4.0
"""A smooth flow does not come to this r, and to this many times the r before, in one step: dt grows gradually."""


def relative_gradient_change(
    old: Tensor,
    new: Tensor,
    old_norm: Tensor,
    new_norm: Tensor,
    counts: Tensor,
    vanished: float,
    scratch: Tensor | None = None,
) -> Tensor:
    """r = ‖g_new - g_old‖^2 / (‖g_new‖ ‖g_old‖), (E,) float64.

    Where either gradient is exactly zero, r is ``vanished`` if that ``counts`` (E,) bool, and else 0.

    A flow approaches a stationary point without end, so a step that lands on one is too long, and r beyond bounds. In
    the flat part of a piecewise linear loss, or where the old gradient was negligible, nothing is gained by refining
    it: 0.

    Norms of float32 gradients are squared in float64: at large alpha, where g ~ 1/alpha, they would underflow. The
    difference is written to ``scratch`` (E, N) if given: new memory of that size costs more than the subtraction.
    """
    distance = torch.linalg.vector_norm(torch.sub(new, old, out=scratch), dim=1).double()
    scale = old_norm * new_norm
    r = distance * distance / scale
    return r if holds_for_all(scale) else torch.where(scale == 0, counts * vanished, r)


def negligible(state: FlowState) -> Tensor:
    """(E,) float64: a gradient that is rounding error alone is at most this long; a longer one may be exact."""
    share: float = torch.finfo(state.gradient.dtype).eps ** 0.75
    return share * state.gradient_scale


def exceeds_rounding(state: FlowState) -> Tensor:
    """(E,) bool: the gradient of the last accepted step is longer than :func:`negligible`."""
    return state.gradient_norm > negligible(state)


def is_noise(state: FlowState, r: Tensor, real: Tensor) -> Tensor:
    """(E,) bool: a step that changed the gradient by ``r`` (E,) shows that it is rounding error alone.

    It was negligible, so not ``real`` (E,), and jumped in this step.
    """
    if holds_for_all(real):
        return real.logical_not()
    return real < (r >= (_JUMP * state.gradient_change).clamp_min(_NOISE))
