"""What one nonlinearity does to the covariance of Gaussian preactivations.

For (u, v) Gaussian, centred, with variances q1 and q2 and covariance c, and phi with its normalising constant,

    value = E[phi(u) phi(v)],   slope = E[phi'(u) phi'(v)] = d value / d c.

``relu`` (arXiv:1611.01491, arc-cosine kernels), ``erf`` (arcsine kernel) and ``linear`` have closed forms. All others
go through Mehler's expansion in orthonormal Hermite polynomials h_k,

    E[f(u) f(v)] = sum_k a_k(q1) a_k(q2) rho^k,   a_k(q) = E[f(sqrt(q) z) h_k(z)],   rho = c / sqrt(q1 q2),

with f = phi or phi'. It needs one-dimensional integrals only, one set a sample instead of one a pair. See
:mod:`.mehler`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import Activation
from lazy_lightning.ntk.mehler import Function, expected_products, expected_squares
from lazy_lightning.ntk.one_device import require_one_device

_PARALLEL = 32 * torch.finfo(torch.float64).eps  # what the rounding of a sum of products leaves of 1 - rho
_TINY = torch.finfo(torch.float64).tiny


class Dual(NamedTuple):
    """``value`` = E[phi(u) phi(v)] and ``slope`` = E[phi'(u) phi'(v)], of one shape, float64."""

    value: Tensor
    slope: Tensor


def dual_activation(activation: Activation, c: Tensor, q1: Tensor, q2: Tensor | None = None) -> Dual:
    """The dual of phi and of phi' for all pairs of two sets of Gaussians.

    Errors are measured against sqrt(E[phi(u)^2] E[phi(v)^2]), likewise for the slope. They are below 1e-14 in general
    and 1e-13 for softplus with beta sqrt(q) = 60; pairs near parallel go up to 1e-8 before a sharper function is
    refused. Pairs parallel up to rounding are taken as parallel, so that a sample agrees with its copy in another set.
    relu's slope has the digits that rho has of the angle: an angle of 1e-6 comes with an error of 1e-10.

    A million pairs take on one CPU core 0.03 s with a closed form, 0.4 s with tanh, gelu or swish, 0.7 s with
    softplus(5), 2 s with softplus(50), and of one set down to half. Memory: four or five matrices (n1, n2), and
    2e6 numbers a thousand samples.

    Args:
        activation: phi, smooth on each side of zero.
        c: covariances (n1, n2).
        q1: variances (n1,) of u.
        q2: variances (n2,) of v; None for the pairs of one set, whose diagonal is then that of :func:`second_moments`.

    >>> from lazy_lightning.nn.activations import activation
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> dual_activation(activation("relu"), torch.zeros(1, 1, dtype=torch.float64), one, one).value * torch.pi
    tensor([[1.0000]], dtype=torch.float64)

    Raises:
        ConfigError: the shapes do not fit, or phi is too rough for the expansion.
    """
    _check(c, q1, q1 if q2 is None else q2)
    require_one_device(c=c, q1=q1, q2=q2)
    closed_form = _CLOSED_FORMS.get(activation.name)
    with _without_tape():
        c, q1 = c.double(), q1.double()
        other = q1 if q2 is None else q2.double()
        if closed_form is not None:
            dual = closed_form(c, q1[:, None], other[None, :])
            scaled = Dual(activation.scale**2 * dual.value, activation.scale**2 * dual.slope)
        else:
            rho, name = _correlation(c, q1[:, None], other[None, :]), activation.name
            scaled = Dual(
                *(expected_products(f, name, rho, q1, None if q2 is None else other) for f in _with_slope(activation))
            )
        if q2 is None:
            return Dual(*map(_mirrored, scaled, second_moments(activation, q1)))
    return scaled


def second_moments(activation: Activation, q: Tensor) -> Dual:
    """E[phi(u)^2] and E[phi'(u)^2] for u ~ N(0, q), each (n,), to a relative 1e-14.

    Args:
        activation: phi, smooth on each side of zero.
        q: variances (n,).

    >>> from lazy_lightning.nn.activations import activation
    >>> moments = second_moments(activation("tanh"), torch.ones(1, dtype=torch.float64))
    >>> round(moments.value.item(), 12)
    1.0
    """
    closed_form = _CLOSED_FORMS.get(activation.name)
    with _without_tape():
        q = q.double()
        if closed_form is None:
            return Dual(*(expected_squares(f, q) for f in _with_slope(activation)))
        value, slope = closed_form(q, q, q)
        return Dual(activation.scale**2 * value, activation.scale**2 * slope)


def _mirrored(kernel: Tensor, diagonal: Tensor) -> Tensor:
    """The symmetric matrix of what is above the diagonal: vectorised functions are not symmetric to the bit."""
    above = kernel.triu(1)
    return above + above.mT + diagonal.diag_embed()


# Closed forms, without the normalising constant; c, q1 and q2 are of shapes that broadcast.


def _relu(c: Tensor, q1: Tensor, q2: Tensor) -> Dual:
    """sqrt(q1 q2) (sin t + (pi - t) cos t) / (2 pi) and (pi - t) / (2 pi), t the angle of u and v."""
    rho = _correlation(c, q1, q2)
    angle = rho.acos()
    value = (((1 - rho) * (1 + rho)).sqrt() + (math.pi - angle) * rho) * (q1 * q2).sqrt() / (2 * math.pi)
    # The slope of relu at zero is 0: a neuron that never moves has none.
    return Dual(value, torch.where(q1 * q2 > 0, (math.pi - angle) / (2 * math.pi), 0.0))


def _erf(c: Tensor, q1: Tensor, q2: Tensor) -> Dual:
    """(2/pi) asin(2 c / sqrt((1 + 2 q1)(1 + 2 q2))) and (4/pi) / sqrt((1 + 2 q1)(1 + 2 q2) - 4 c^2)."""
    determinant = 1 + 2 * (q1 + q2) + 4 * (q1 * q2 - c * c).clamp(min=0)
    # The arcsine as an arctangent, which keeps its digits where its argument comes near one.
    return Dual((2 / math.pi) * (2 * c / determinant.sqrt()).atan(), (4 / math.pi) * determinant.rsqrt())


def _linear(c: Tensor, q1: Tensor, q2: Tensor) -> Dual:
    return Dual(c.clone(), torch.ones_like(c))


_CLOSED_FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Dual]] = {"relu": _relu, "erf": _erf, "linear": _linear}


def _correlation(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """c / sqrt(q1 q2), exactly 1 or -1 where rounding alone may keep it from there, and 0 if a variance is 0."""
    size = (q1 * q2).sqrt()
    rho = torch.where(size > 0, c / size.clamp(min=_TINY), 0.0).clamp(-1, 1)
    return torch.where(rho.abs() >= 1 - _PARALLEL, rho.sign(), rho)


def _with_slope(activation: Activation) -> tuple[Function, Function]:
    """phi and its exact derivative, elementwise."""

    def slope(z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.clone().requires_grad_(True)
            return torch.autograd.grad(activation(z).sum(), z)[0]

    return activation, slope


@contextmanager
def _without_tape() -> Iterator[None]:
    """Numbers only, also where the caller is in inference mode, which the derivative of phi is not computed in."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _check(c: Tensor, q1: Tensor, q2: Tensor) -> None:
    expected = (*q1.shape, *q2.shape)
    if c.ndim != 2 or c.shape != expected or not c.numel():
        raise ConfigError(
            f"covariances of shape {tuple(c.shape)} came with variances of shapes {tuple(q1.shape)} and"
            f" {tuple(q2.shape)}, expected (n1, n2) with (n1,) and (n2,), none empty: give one variance a sample."
        )
