"""Nonlinearities normalised on Gaussian inputs: E[phi(z)^2] = 1 for z ~ N(0, 1).

With this constant the preactivations of every hidden layer keep variance one at initialisation in the NTK
parametrisation, whatever the depth (arXiv:1906.08034). Only the second moment is normalised; the
mean is left as it is, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.softplus import SOFTPLUS_THRESHOLD, name_and_beta

# Panels [2^k, 2^(k+1)] on both sides of zero: kinks at zero and widths down to 1e-6 are resolved alike.
_LARGEST_POWER = 4  # the Gaussian weight at 16 is 1e-56
_SMALLEST_POWER = -24
_NODES_PER_PANEL = 48


class Activation(nn.Module):
    """An elementwise function times the constant that makes its Gaussian second moment one.

    ``activation("swish")(z)`` is ``scale * phi(z)``, with ``scale = E[phi(z)^2]^(-1/2)``; any shape, any
    floating dtype, differentiable twice and forward, and usable under ``torch.func`` transforms.

    Attributes:
        name: the text that builds this activation again.
        scale: the normalising constant.
        absorbs_scale: whether :meth:`absorb` costs nothing, because the family is closed under z -> c z.
    """

    absorbs_scale: bool = False

    def __init__(self, name: str, phi: Callable[[Tensor], Tensor], moment: float | None = None) -> None:
        super().__init__()
        self.name = name
        self.phi = phi
        self.scale = (second_moment(phi) if moment is None else moment) ** -0.5

    def forward(self, z: Tensor) -> Tensor:
        """``scale * phi(z)``, of the shape of ``z``."""
        value = self.phi(z)
        return value if self.scale == 1.0 else self.scale * value

    def absorb(self, u: Tensor, factor: float) -> tuple[Tensor, float]:
        """``(a, c)`` with ``c * a`` equal to ``self(factor * u)``, for ``factor > 0``.

        The constants stay Python numbers, to be multiplied into the next layer's: each spares two passes over
        memory, one forward and one backward.
        """
        return self.phi(u if factor == 1.0 else factor * u), self.scale

    def extra_repr(self) -> str:
        """The name and the constant, for ``print(model)``."""
        return f"{self.name}, scale={self.scale:.6g}"


class Homogeneous(Activation):
    """An activation with phi(c u) = c phi(u) for c > 0."""

    absorbs_scale = True

    def absorb(self, u: Tensor, factor: float) -> tuple[Tensor, float]:
        """``(phi(u), factor * scale)``."""
        return self.phi(u), factor * self.scale


class Softplus(Activation):
    """log(1 + exp(beta z)) / beta, normalised; beta = 5 in arXiv:1906.08034.

    Raises:
        ConfigError: ``beta`` is not a positive finite number.
    """

    absorbs_scale = True

    def __init__(self, beta: float = 5.0) -> None:
        check_arguments(Softplus, locals())
        if not (math.isfinite(beta) and beta > 0):
            raise ConfigError(f"softplus got beta = {beta}, expected a positive number: write for example softplus(5).")
        phi = partial(F.softplus, beta=beta, threshold=SOFTPLUS_THRESHOLD)
        super().__init__(f"softplus({beta:.17g})", phi, _softplus_moment(beta))
        self.beta = beta

    def absorb(self, u: Tensor, factor: float) -> tuple[Tensor, float]:
        """Uses softplus_beta(c u) = c softplus_(c beta)(u), so the factor goes into beta."""
        return F.softplus(u, self.beta * factor, SOFTPLUS_THRESHOLD), factor * self.scale


def second_moment(phi: Callable[[Tensor], Tensor]) -> float:
    """E[phi(z)^2] for z ~ N(0, 1), to a relative 1e-14, for phi smooth on each side of zero.

    Composite Gauss-Legendre quadrature in float64 on panels that shrink towards zero. ``phi`` maps a float64
    tensor on the CPU to one of its shape, and may have a kink or a jump at zero only.

    >>> round(second_moment(torch.relu), 14)
    0.5
    >>> second_moment(F.gelu) / (1 / 3 + 1 / (2 * math.pi * 3**0.5)) - 1 < 1e-14
    True
    """
    nodes, weights = _gaussian_rule()
    with torch.no_grad():
        values = phi(torch.tensor(nodes, dtype=torch.float64, device="cpu"))
    return math.fsum((weights * values.numpy() ** 2).tolist())


@lru_cache(maxsize=1)
def _gaussian_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the integral against the density of N(0, 1)."""
    unit_nodes, unit_weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    edges = np.concatenate([[0.0], 2.0 ** np.arange(_SMALLEST_POWER, _LARGEST_POWER + 1)])
    half_lengths = np.diff(edges)[:, None] / 2
    positive = (edges[:-1, None] + half_lengths * (1 + unit_nodes)).ravel()
    weights = (half_lengths * unit_weights).ravel() * np.exp(-(positive**2) / 2) / math.sqrt(2 * math.pi)
    return np.concatenate([-positive, positive]), np.concatenate([weights, weights])


@lru_cache(maxsize=64)
def _softplus_moment(beta: float) -> float:
    return second_moment(partial(F.softplus, beta=beta, threshold=SOFTPLUS_THRESHOLD))


_BUILDERS: dict[str, Callable[[], Activation]] = {
    "erf": lambda: Activation("erf", torch.erf, 2 / math.pi * math.asin(2 / 3)),
    "gelu": lambda: Activation("gelu", F.gelu, 1 / 3 + 1 / (2 * math.pi * math.sqrt(3))),
    "linear": lambda: Homogeneous("linear", nn.Identity(), 1.0),
    "relu": lambda: Homogeneous("relu", torch.relu, 0.5),
    "softplus": Softplus,
    "swish": lambda: Activation("swish", F.silu),
    "tanh": lambda: Activation("tanh", torch.tanh),
}
ACTIVATIONS: tuple[str, ...] = tuple(_BUILDERS)


def activation(spec: str | Activation) -> Activation:
    """The activation named by ``spec``: one of ``ACTIVATIONS``, ``softplus(5)`` or ``softplus(beta=5)``.

    >>> activation("relu").scale == 2**0.5
    True
    >>> activation("softplus(beta=2)").name
    'softplus(2)'

    Raises:
        ConfigError: the name is unknown, or it comes with a parameter that it does not have.
    """
    if isinstance(spec, Activation):
        return spec
    name, beta = name_and_beta(spec, "activation", ACTIVATIONS, "softplus", "for example softplus(5)")
    return _BUILDERS[name]() if beta is None else Softplus(beta)


def plain_activation(spec: str | Activation) -> Activation:
    """The activation without its constant: ``phi(z)``, with a ``scale`` of one.

    >>> plain_activation("relu")(torch.tensor([-1.0, 3.0]))
    tensor([0., 3.])
    """
    made = activation(spec)
    return Activation(made.name, made.phi, moment=1.0)
