"""Two-layer networks as sums over neurons (arXiv:1812.07956)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import plain_activation
from lazy_lightning.nn.data_shapes import resolved_shapes
from lazy_lightning.nn.layers import NTKLinear

Scaling = Literal["sqrt", "mean"]
_POWERS: dict[str, float] = {"sqrt": 0.5, "mean": 1.0}


class TwoLayer(nn.Module):
    """f(x) = s sum_j b_j phi(a_j . x), s = 1/sqrt(m) or 1/m: (n, *input_shape) -> (n, num_outputs).

    All weights are trained; a_j starts as N(0, tau^2), without a 1/sqrt(d): meant for inputs on the unit sphere. phi is
    plain, not normalised. Parameters are ``hidden.weight`` (m, d) and ``head.weight`` (num_outputs, m).

    Args:
        width: neurons m.
        activation: see :func:`lazy_lightning.nn.activations.activation`.
        scaling: ``sqrt`` is s = 1/sqrt(m), lazy for many neurons; ``mean`` is s = 1/m.
        tau: standard deviation of the weights at the start.
        signed: b_j = +tau or -tau at random; otherwise N(0, tau^2).
        symmetric: the second half of the neurons starts as the first with b_j of the other sign, so f(w0, x) = 0.
        input_shape: shape of one sample, filled in from the data when the configuration leaves it.
        num_outputs: outputs per sample, filled in likewise.

    >>> net = TwoLayer(4, symmetric=True, input_shape=2)
    >>> bool(net(torch.ones(1, 2)).abs() < 1e-6)  # zero up to the order of a sum
    True

    Raises:
        ConfigError: a value out of range, or an odd number of neurons in two halves.
    """

    def __init__(
        self,
        width: int = 100,
        activation: str = "relu",
        scaling: Scaling = "sqrt",
        tau: float = 1.0,
        signed: bool = True,
        symmetric: bool = False,
        *,
        input_shape: Sequence[int] | int | None = None,
        num_outputs: int = 1,
    ) -> None:
        check_arguments(TwoLayer, locals())
        super().__init__()
        _check(width, scaling, tau, symmetric)
        self.width = width
        self.input_shape, self.num_outputs = resolved_shapes(input_shape, num_outputs)
        self.phi = plain_activation(activation)
        self.hidden = nn.Linear(math.prod(self.input_shape), width, bias=False)
        self.head = NTKLinear(width, self.num_outputs, fan_in_power=_POWERS[scaling])
        self._draw(tau, signed, symmetric)

    @torch.no_grad()
    def _draw(self, tau: float, signed: bool, symmetric: bool) -> None:
        a, b = self.hidden.weight, self.head.weight
        nn.init.normal_(a, std=tau)
        nn.init.normal_(b, std=tau)
        if signed:
            b.copy_(tau * torch.where(b > 0, 1.0, -1.0))
        if symmetric:
            half = self.width // 2
            a[half:], b[:, half:] = a[:half], -b[:, :half]

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(w, x), (n, num_outputs)."""
        return cast(Tensor, self.head(self.phi(self.hidden(x.flatten(1)))))

    def forward_members(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The outputs of E members, (E, n, num_outputs), by one product a layer, as ``vmap`` would give them."""
        a: Tensor = self.phi(x.flatten(1) @ params["hidden.weight"].mT)
        head = self.head.scale * params["head.weight"]
        return a @ head.mT


def _check(width: int, scaling: str, tau: float, symmetric: bool) -> None:
    if width < 1 or (symmetric and width % 2):
        raise ConfigError(f"width is {width}, expected an integer >= 1, and even if symmetric")
    if scaling not in get_args(Scaling):
        raise ConfigError(f"scaling is {scaling!r}, expected 'sqrt' or 'mean': choose one of the two.")
    if not (math.isfinite(tau) and tau > 0):
        raise ConfigError(f"tau is {tau}, expected a positive number: small learns features, large is lazy.")
