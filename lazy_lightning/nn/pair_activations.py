"""Differences phi(z0 + dz) - phi(z0) of nonlinearities without cancellation, with the exact slope phi'(z0 + dz)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

_SHORT = 0.5
"""Up to this |dz| the slope is integrated; beyond it the difference of the values has its digits."""
_DENSITY_AT_ZERO: float = 1 / math.sqrt(2 * math.pi)
_NODES, _WEIGHTS = (part.tolist() for part in np.polynomial.legendre.leggauss(4))


class Smooth(NamedTuple):
    """A nonlinearity and its derivative."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _gelu_slope(z: Tensor) -> Tensor:
    density: Tensor = torch.exp(-0.5 * z * z) * _DENSITY_AT_ZERO
    return 0.5 * torch.erfc(-z * math.sqrt(0.5)) + z * density


SMOOTH: dict[str, Smooth] = {
    "erf": Smooth(torch.erf, lambda z: torch.exp(-z * z) * (2 / math.sqrt(math.pi))),
    "gelu": Smooth(F.gelu, _gelu_slope),
}
"""Those without an addition formula, by the name of torch's function."""


class SmoothDifference(torch.autograd.Function):
    """dz times the mean of phi' between z0 and z0 + dz, by Gauss-Legendre quadrature with 4 nodes, for |dz| <= 1/2.

    The error of the quadrature is below float32's rounding there. Longer steps take the difference of the values.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z0: Tensor, dz: Tensor, name: str) -> Tensor:
        """phi(z0 + dz) - phi(z0), of the shape of ``z0``."""
        value, slope = SMOOTH[name]
        short = dz.clamp(-_SHORT, _SHORT)
        mean = sum(
            (0.5 * weight) * slope(z0 + (0.5 + 0.5 * node) * short)
            for node, weight in zip(_NODES, _WEIGHTS, strict=True)
        )
        if _surely_equal(short, dz):
            return short * mean
        return torch.where(short == dz, short * mean, value(z0 + dz) - value(z0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        """Keeps z0 and dz, and the name."""
        z0, dz, ctx.name = inputs
        ctx.save_for_backward(z0, dz)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        """The gradient by dz, with the slope at z0 + dz."""
        z0, dz = ctx.saved_tensors
        return None, gradient * SMOOTH[ctx.name].slope(z0 + dz), None


class ReluDifference(torch.autograd.Function):
    """max(dz + min(z0, 0), -max(z0, 0)), which is relu(z0 + dz) - relu(z0) without a rounding for z0 > 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z0: Tensor, dz: Tensor) -> Tensor:
        """relu(z0 + dz) - relu(z0), of the shape of ``z0``."""
        return torch.maximum(dz + z0.clamp_max(0), -z0.clamp_min(0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keeps z0 and dz."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """The gradient by dz, where z0 + dz > 0: decided on dz > -z0, which is exact."""
        z0, dz = ctx.saved_tensors
        return None, gradient * (dz > -z0)


class _DifferenceWithSlope(torch.autograd.Function):
    """A difference whose forward pass also returns the slope at z0 + dz; of its four inputs dz is the last."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps the slope for the backward pass."""
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[None, None, None, Tensor]:
        """The gradient by dz."""
        return None, None, None, gradient * ctx.saved_tensors[0]


class SoftplusDifference(_DifferenceWithSlope):
    """log1p(s expm1(beta dz)) / beta with s = sigmoid(beta z0), for |beta dz| <= 1.

    With u = s expm1(beta dz) the slope at z0 + dz is (s + u) / (1 + u), without another exponential. For longer steps
    relu(z) and log1p(exp(-beta |z|)) / beta, the two parts of softplus, are subtracted each by itself.
    """

    @staticmethod
    def forward(z0: Tensor, s: Tensor, beta: float, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``."""
        step = dz if beta == 1.0 else beta * dz
        short = step.clamp(-1, 1)
        u = s * torch.expm1(short)
        difference, slope = torch.log1p(u).div_(beta), (s + u).div_(1 + u)
        if _surely_equal(short, step):
            return difference, slope
        far, z1 = short != step, z0 + dz
        jump = ReluDifference.forward(z0, dz) + (_tail(beta * z1) - _tail(beta * z0)) / beta
        return torch.where(far, jump, difference), torch.where(far, torch.sigmoid(beta * z1), slope)


class TanhDifference(_DifferenceWithSlope):
    """t q / (1 + a t) with a = tanh(z0), q = 1 - a^2 and t = tanh(dz), for |dz| <= 1/2, by the addition formula.

    The slope at z0 + dz is q (1 - t^2) / (1 + a t)^2. Longer steps take the difference of the values.
    """

    @staticmethod
    def forward(z0: Tensor, a: Tensor, q: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``."""
        short = dz.clamp(-_SHORT, _SHORT)
        t = torch.tanh(short)
        inverse = (1 + a * t).reciprocal_()
        ratio = q * inverse
        difference, slope = ratio * t, ratio * inverse * (1 - t * t)
        if _surely_equal(short, dz):
            return difference, slope
        z1 = z0 + dz
        far = short != dz
        return torch.where(far, torch.tanh(z1) - a, difference), torch.where(far, tanh_slope(z1), slope)


class SwishDifference(_DifferenceWithSlope):
    """dz r + z0 (r - s) with s = sigmoid(z0) and r = sigmoid(z0 + dz) = (s + u) / (1 + u), u = s expm1(dz).

    r - s is u (1 - s) / (1 + u). For |dz| <= 1; longer steps take the difference of the values.
    """

    @staticmethod
    def forward(z0: Tensor, s: Tensor, rest: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``; ``rest`` is 1 - s."""
        short = dz.clamp(-1, 1)
        u = s * torch.expm1(short)
        inverse = (1 + u).reciprocal_()
        r, left, z1 = (s + u) * inverse, rest * inverse, z0 + dz
        difference, slope = short * r + z0 * (u * left), r * (1 + z1 * left)
        if _surely_equal(short, dz):
            return difference, slope
        far = short != dz
        sigmoid = torch.sigmoid(z1)
        return (
            torch.where(far, F.silu(z1) - F.silu(z0), difference),
            torch.where(far, sigmoid * (1 + z1 * torch.sigmoid(-z1)), slope),
        )


def tanh_slope(z: Tensor) -> Tensor:
    """1 - tanh(z)^2, of the shape of ``z``, without cancellation.

    >>> tanh_slope(torch.tensor(0.0))
    tensor(1.)
    """
    return 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)


def _tail(z: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-z.abs()))


def _surely_equal(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are equal, where finding out waits for no device; else False."""
    return a.device.type == "cpu" and not is_functorch_wrapped_tensor(a) and torch.equal(a, b)
