"""A damped oscillator in closed form: how one eigendirection of a quadratic loss decays under momentum flow.

tau u'' + u' + k u = 0 with u(0) = 1, u'(0) = 0; tau = 0 is u' = -k u. Valid and stable over-damped, critically damped
and oscillating.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SERIES_TERMS = 18
"""Terms of the series of g: at its rim, where both roots times t are 1, the next is below 19/20! = 8e-18."""


def decay(rate: Tensor, t: Tensor, tau: float = 0.0) -> Tensor:
    """r(t), what is left at time t of a residual that decays at this rate: exp(-k t) by gradient flow.

    With momentum, tau r'' + r' = -k r from rest. With a < b the roots of tau s^2 - s + k, delta^2 = 1 - 4 k tau and
    x = t/(2 tau),

        r = e^(-a t) (1 + a t phi((b - a) t)),  phi(z) = (1 - e^-z)/z,   if 4 k tau <= 1,
        r = e^-x (cos(|delta| x) + sin(|delta| x)/|delta|)               otherwise.

    Both are even in delta and smooth where it vanishes, so critical damping is no special case.

    >>> decay(torch.tensor([0.0, 1.0, 4.0]), torch.tensor(1.0), tau=0.25)
    tensor([ 1.0000,  0.4060, -0.1531])
    """
    if tau == 0:
        return torch.exp(-rate * t).where(rate != 0, 1.0)  # 0 * inf
    slow, delta, over = _roots(rate, tau)
    finite = t.masked_fill(t.isinf(), 0.0)
    x = finite / (2 * tau)
    damped = torch.exp(-slow * finite) * (1 + slow * finite * _phi(2 * delta * x))
    oscillating = torch.exp(-x) * (torch.cos(delta * x) + x * _sinc(delta * x))
    return torch.where(over, damped, oscillating).where(~t.isinf(), (rate == 0).to(rate.dtype))


def integrated_decay(rate: Tensor, t: Tensor, tau: float = 0.0) -> Tensor:
    """g(t) = (1 - r(t))/k, with r of :func:`decay`; its limit t, or t - tau (1 - e^(-t/tau)), at k = 0.

    With momentum it is also (t^2/tau) exp[0, -a t, -b t], a divided difference of the exponential, which is summed as
    a series where a t and b t are at most 1 in size; there the quotient has few digits or none.

    >>> integrated_decay(torch.tensor([0.0, 1e-30, 1.0]), torch.tensor(2.0))
    tensor([2.0000, 2.0000, 0.8647])
    """
    if tau == 0:
        return (t * _phi(rate * t)).where(~t.isinf(), 1 / rate)
    slow, delta, over = _roots(rate, tau)
    finite = t.masked_fill(t.isinf(), 0.0)
    x = finite / (2 * tau)
    damped = finite * (_phi(slow * finite) - torch.exp(-slow * finite) * _phi(2 * delta * x)) * 2 / (1 + delta)
    oscillating = (1 - decay(rate, finite, tau)) / rate
    size = torch.where(over, (1 + delta) * x, (rate * finite).sqrt() * (finite / tau).sqrt())
    late = torch.where(over, damped, oscillating)
    g = torch.where(size > 1, late, _early_integrated_decay(rate, finite, tau))
    return g.where(~t.isinf(), 1 / rate)


def _roots(rate: Tensor, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """The slow root a, |delta|, and whether the motion is over-damped (or critical)."""
    square = 1 - 4 * rate * tau
    delta = square.abs().sqrt()
    return 2 * rate / (1 + delta), delta, square >= 0  # a = (1 - delta)/(2 tau) has no digits at small k


def _early_integrated_decay(rate: Tensor, t: Tensor, tau: float) -> Tensor:
    """(t^2/tau) sum_m h_m/(m + 2)!, with h_m the sum of all products of m of the numbers -a t and -b t.

    The h_m follow from the sum -t/tau and the product k t^2/tau of the two: real ones, damped or oscillating.
    """
    both, product = -t / tau, rate * t * (t / tau)
    previous, h = torch.zeros_like(product), torch.ones_like(product)
    factor = 0.5
    total = factor * h
    for m in range(1, _SERIES_TERMS + 1):
        previous, h = h, both * h - product * previous
        factor /= m + 2
        total = total + factor * h
    return t * (t / tau) * total


def _phi(z: Tensor) -> Tensor:
    """(1 - e^-z)/z, 1 at 0."""
    return (-torch.expm1(-z) / z).where(z != 0, 1.0)


def _sinc(z: Tensor) -> Tensor:
    """sin(z)/z, 1 at 0."""
    return (torch.sin(z) / z).where(z != 0, 1.0)
