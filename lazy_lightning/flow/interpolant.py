"""Interpolants: where a member was within its last step, by the integrator's own formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Within(NamedTuple):
    """Where members were within their last step; R points, N weights."""

    displacement: Tensor
    """(R, N) dw = w - w0."""
    velocity: Tensor | None
    """(R, N) v with momentum, without meaning where tau is 0; None for gradient flow."""


Interpolant = Callable[[Sequence[int], Tensor], Within]
"""Maps R indices of members, in ascending order but each as often as one likes, and shares (R,) float64 in [0, 1] of
their last step to where they were. It holds for members whose last attempt was accepted, until the next attempt."""
