"""The first-order model of a network at its initialisation, by forward-mode differentiation.

F_lin(w, x) = alpha J(w0, x) (w - w0) (arXiv:1812.07956, arXiv:1906.08034).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tangent_outputs(outputs: Callable[[Tensor], Tensor], w0: Tensor, displacement: Tensor) -> Tensor:
    """J(w0) dw, the change of the outputs to first order: one forward-mode pass, no Jacobian.

    Args:
        outputs: maps weights (E, N) to outputs (E, n, ...).
        w0: (E, N).
        displacement: (E, N) dw.

    >>> tangent_outputs(lambda w: w**2, torch.tensor([[3.0]]), torch.tensor([[0.5]]))
    tensor([[3.]])
    """
    tangent: Tensor = torch.func.jvp(outputs, (w0,), (displacement,))[1]
    return tangent


def tangent_departure(centered: Tensor, linear: Tensor) -> Tensor:
    """‖F - F_lin‖ / ‖F‖ for each member, (E,): 0 when lazy, of order 1 when features are learnt.

    Both arguments are (E, n, ...). NaN where F is exactly 0.
    """
    distance: Tensor = torch.linalg.vector_norm((centered - linear).flatten(1), dim=1)
    size: Tensor = torch.linalg.vector_norm(centered.flatten(1), dim=1)
    return distance / size
