"""Exact conversion between this package's convention and those with 1/h at the end of the network.

Here (arXiv:1906.08034) the head divides by sqrt(h). With f the output and F = alpha (f - f_0),

    L(w) = 1/(alpha^2 n) sum_mu ell(F_mu, y_mu),   w' = -grad L(w).

Let f~ be the network whose head divides by h. With the same weights f~ = f / sqrt(h), so
F~ = alpha~ (f~ - f~_0) equals F for all w if and only if

    alpha~ = sqrt(h) alpha.

The losses are then the same function of w up to a constant k, L~ = k L, so grad L~ = k grad L: the trajectory
is the same curve, run k times faster, w~(t~) = w(k t~), and

    t~ = t / k.

Two prefactors are in use, by name:

``mean_field``
    L~ = 1/(alpha~^2 n) sum ell = L / h, so k = 1/h and t~ = h t.
``reference_code``
    L~ = 1/(alpha~ n) sum ell = (alpha^2 / alpha~) L, so k = alpha / sqrt(h) and t~ = sqrt(h) t / alpha. This is
    what the code published with the paper does; in its own numbers t~ / h = t / (sqrt(h) alpha).

Nothing above needs f_0: the same holds without centring, F = alpha f. The momentum flow
v' = -(v + grad L)/tau, w' = v becomes, with s = t / k and v~ = dw/ds = k v, the flow
dv~/ds = -(v~ + k grad L) / (tau / k): tau converts as a time does. So does the step of the explicit update of
either flow, step by step and not only in the limit, so converted runs agree to rounding.

Where it stops: the head has no bias (a head bias of scale b here has scale b / sqrt(h) there). For a network
without hidden layers, h is the number of its inputs.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from lazy_lightning.errors import ConfigError

Convention = Literal["mean_field", "reference_code"]


class Scales(NamedTuple):
    """The two numbers that a convention changes."""

    alpha: float
    t: float


def to_mean_field(alpha: float, t: float, width: int, convention: Convention = "mean_field") -> Scales:
    """(alpha~, t~) of a network with a 1/h head from this package's (alpha, t); ``t`` may be a step or a tau.

    >>> to_mean_field(alpha=2.0, t=3.0, width=100)
    Scales(alpha=20.0, t=300.0)
    >>> to_mean_field(alpha=2.0, t=3.0, width=100, convention="reference_code")
    Scales(alpha=20.0, t=15.0)

    Raises:
        ConfigError: ``alpha`` or ``width`` is not positive, or the convention is unknown.
    """
    factor = time_factor(alpha, width, convention)
    return Scales(math.sqrt(width) * alpha, t * factor)


def from_mean_field(alpha: float, t: float, width: int, convention: Convention = "mean_field") -> Scales:
    """This package's (alpha, t) from those of a network with a 1/h head, inverse of :func:`to_mean_field`.

    >>> from_mean_field(alpha=20.0, t=15.0, width=100, convention="reference_code")
    Scales(alpha=2.0, t=3.0)

    Raises:
        ConfigError: ``alpha`` or ``width`` is not positive, or the convention is unknown.
    """
    _check(alpha, width)
    own_alpha = alpha / math.sqrt(width)
    return Scales(own_alpha, t / time_factor(own_alpha, width, convention))


def time_factor(alpha: float, width: int, convention: Convention = "mean_field") -> float:
    """t~ / t = 1 / k for this package's ``alpha``: h, or sqrt(h) / alpha for ``reference_code``.

    Raises:
        ConfigError: ``alpha`` or ``width`` is not positive, or the convention is unknown.
    """
    _check(alpha, width)
    if convention == "mean_field":
        return float(width)
    if convention == "reference_code":
        return math.sqrt(width) / alpha
    raise ConfigError(
        f"convention is {convention!r}, expected 'mean_field' or 'reference_code': choose one of the two."
    )


def _check(alpha: float, width: int) -> None:
    if not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha is {alpha}, expected a positive finite number: set alpha > 0.")
    if width < 1:
        raise ConfigError(f"width is {width}, expected the neurons of the last hidden layer: set width >= 1.")
