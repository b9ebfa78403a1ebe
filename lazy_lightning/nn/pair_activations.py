"""Differences phi(z0 + dz) - phi(z0) of nonlinearities without cancellation, with the exact slope phi'(z0 + dz)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

_SHORT = 0.5
"""Up to this |dz| a formula for differences is used; beyond it the difference of the values has its digits."""
_SHORT_OF_SWISH = 20.0
"""The same of swish."""
_DENSITY_AT_ZERO: float = 1 / math.sqrt(2 * math.pi)
_ERF_SLOPE_AT_ZERO: float = 2 / math.sqrt(math.pi)
_NODES, _WEIGHTS = (part.tolist() for part in np.polynomial.legendre.leggauss(4))


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
    """A difference whose forward pass also returns the slope at z0 + dz; the last of its inputs is dz."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps the slope for the backward pass."""
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient by dz."""
        return *(None for _ in ctx.needs_input_grad[1:]), gradient * ctx.saved_tensors[0]


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
    """dz r + z0 (r - s) with s = sigmoid(z0), r = sigmoid(z0 + dz) and r - s = s expm1(dz) (1 - r), for |dz| <= 20.

    The slope at z0 + dz is r (1 + (z0 + dz) (1 - r)). Longer steps take the difference of the values.
    """

    @staticmethod
    def forward(z0: Tensor, s: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``."""
        short, z1 = dz.clamp(-_SHORT_OF_SWISH, _SHORT_OF_SWISH), z0 + dz
        r, left = torch.sigmoid(z1), torch.sigmoid(-z1)  # 1 - r has no digits for large z
        difference = (s * torch.expm1(short)).mul_(left).mul_(z0).addcmul_(short, r)
        slope = left.mul_(z1).add_(1).mul_(r)
        if _surely_equal(short, dz):
            return difference, slope
        return torch.where(short == dz, difference, F.silu(z1) - F.silu(z0)), slope


class ErfDifference(_DifferenceWithSlope):
    """dz times the mean of erf' between z0 and z0 + dz, for |dz| <= 1/2; see :func:`_mean_of_gaussian`.

    Longer steps take the difference of the values.
    """

    @staticmethod
    def forward(z0: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``."""
        short, z1 = dz.clamp(-_SHORT, _SHORT), z0 + dz
        difference = _mean_of_gaussian(z0, short, 1.0).mul_(short).mul_(_ERF_SLOPE_AT_ZERO)
        slope = _gaussian(z1.square(), 1.0).mul_(_ERF_SLOPE_AT_ZERO)
        if _surely_equal(short, dz):
            return difference, slope
        return torch.where(short == dz, difference, torch.erf(z1) - torch.erf(z0)), slope


class GeluDifference(_DifferenceWithSlope):
    """dz P(z0 + dz) + z0 D with D = P(z0 + dz) - P(z0), P the normal distribution function, for |dz| <= 1/2.

    D is dz times the mean of the normal density p, see :func:`_mean_of_gaussian`, and P(z0 + dz) is P(z0) + D. The
    slope is P + z p at z0 + dz. Longer steps take the difference of the values.
    """

    @staticmethod
    def forward(z0: Tensor, distribution: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """The difference and the slope at z0 + dz, of the shape of ``z0``; ``distribution`` is P(z0)."""
        short, z1 = dz.clamp(-_SHORT, _SHORT), z0 + dz
        moved = _mean_of_gaussian(z0, short, 0.5).mul_(short).mul_(_DENSITY_AT_ZERO)
        after = distribution + moved
        difference = torch.addcmul(moved.mul_(z0), short, after)
        weighted = _gaussian(z1.square(), 0.5).mul_(z1).mul_(_DENSITY_AT_ZERO)
        if _surely_equal(short, dz):
            return difference, after.add_(weighted)
        near = short == dz
        after = torch.where(near, after, normal_distribution(z1))
        return torch.where(near, difference, F.gelu(z1) - F.gelu(z0)), after.add_(weighted)


def _gaussian(square: Tensor, rate: float) -> Tensor:
    """exp(-rate z^2) from z^2, which is overwritten."""
    return square.mul_(-rate).exp_()


def _mean_of_gaussian(z0: Tensor, dz: Tensor, rate: float) -> Tensor:
    """The mean of exp(-rate z^2) between z0 and z0 + dz, |dz| <= 1/2, by Gauss-Legendre quadrature with 4 nodes.

    Its error is below float32's rounding.
    """
    nodes = zip(_NODES, _WEIGHTS, strict=True)
    terms = [
        _gaussian(torch.add(z0, dz, alpha=0.5 + 0.5 * node).square_(), rate).mul_(0.5 * weight)
        for node, weight in nodes
    ]
    return terms[0].add_(terms[1]).add_(terms[2]).add_(terms[3])


def normal_distribution(z: Tensor) -> Tensor:
    """The distribution function of the normal distribution, of the shape of ``z``, with all digits for z < 0.

    ``torch.special.ndtr`` loses them there: in float32 it errs by 4 % at z = -5.

    >>> normal_distribution(torch.tensor(0.0))
    tensor(0.5000)
    """
    return 0.5 * torch.erfc(-z * math.sqrt(0.5))


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
