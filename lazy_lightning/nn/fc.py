"""Fully connected networks in NTK parametrisation, for one set of parameters or for a batch of members.

arXiv:1906.08034:

    z^1 = W^0 x / sqrt(d),   z^(l+1) = W^l phi(z^l) / sqrt(h),   f = W^L phi(z^L) / sqrt(h)

with 1/h instead of the last 1/sqrt(h) in the mean-field parametrisation (see :mod:`.parametrisation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import activation as build_activation
from lazy_lightning.nn.data_shapes import resolved_shapes
from lazy_lightning.nn.layers import NTKLinear
from lazy_lightning.nn.sizes import require_depth, require_size

Head = Literal["ntk", "mean_field"]
_HEAD_POWERS: dict[str, float] = {"ntk": 0.5, "mean_field": 1.0}


class FC(nn.Module):
    """``depth`` hidden layers of ``width`` neurons and a linear head: (n, *input_shape) -> (n, num_outputs).

    Args:
        width: neurons h of each hidden layer.
        depth: number L of hidden layers; 0 is a linear model.
        activation: see :func:`lazy_lightning.nn.activations.activation`.
        bias: scale of the biases of the hidden layers; 0 for none.
        last_bias: scale of the bias of the head; 0 for none.
        head: the head divides by sqrt(h) (``ntk``) or by h (``mean_field``).
        input_shape: shape of one sample, filled in from the data when the configuration leaves it.
        num_outputs: outputs per sample, filled in likewise.

    Parameters are named ``hidden.0.weight``, ``hidden.0.bias``, ..., ``head.weight``, ``head.bias``.

    >>> import torch
    >>> net = FC(width=30, depth=2, activation="relu", input_shape=(1, 8, 8))
    >>> net(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1])

    Raises:
        ConfigError: a size out of range, an unknown activation or head, or no ``input_shape``.
    """

    def __init__(
        self,
        width: int = 100,
        depth: int = 3,
        activation: str = "softplus(5)",
        bias: float = 0.0,
        last_bias: float = 0.0,
        head: Head = "ntk",
        *,
        input_shape: Sequence[int] | int | None = None,
        num_outputs: int = 1,
    ) -> None:
        check_arguments(FC, locals())
        super().__init__()
        _check_sizes(width, depth, head)
        self.width, self.depth = width, depth
        self.input_shape, self.num_outputs = resolved_shapes(input_shape, num_outputs)
        self.in_features = math.prod(self.input_shape)
        self.activation = build_activation(activation)
        sizes = [self.in_features, *[width] * depth]
        self.hidden = nn.ModuleList(NTKLinear(i, o, bias) for i, o in pairwise(sizes))
        self.head = NTKLinear(sizes[-1], self.num_outputs, last_bias, fan_in_power=_HEAD_POWERS[head])

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(w, x), (n, num_outputs)."""
        a = self._flatten(x)
        for layer in self.hidden:
            a = self.activation(layer(a))
        return cast(Tensor, self.head(a))

    def forward_members(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The outputs of E members on shared samples, as ``vmap`` over ``functional_call`` gives them.

        Equal to rounding and faster: one batched product per layer, and the constants (1/sqrt(fan_in), the
        activation's) are carried as numbers past relu and softplus instead of multiplying tensors.

        Args:
            params: one tensor (E, *shape) for each named parameter.
            x: (n, *input_shape).

        Returns:
            (E, n, num_outputs).
        """
        return self._run_members(params, self._flatten(x))[-1]

    def forward_own_samples(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """As :meth:`forward_members` on samples of each member's own, x (E, n, *input_shape)."""
        return self._run_members(params, self._flatten(x.flatten(0, 1)).view(*x.shape[:2], self.in_features))[-1]

    def preactivations_members(self, params: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
        """The preactivations z^1, ..., z^L of E members on ``x``, each (E, n, width)."""
        return self._run_members(params, self._flatten(x), keep_hidden=True)[:-1]

    def _run_members(self, params: Mapping[str, Tensor], x: Tensor, *, keep_hidden: bool = False) -> list[Tensor]:
        """The outputs on x (n, in_features) or (E, n, in_features), with the preactivations if these are kept."""
        kept: list[Tensor] = []
        members = params["head.weight"].shape[0]
        a, factor = x.mT.expand(members, -1, -1), 1.0
        for i, layer in enumerate(self.hidden):
            u, factor = _apply(cast(NTKLinear, layer), f"hidden.{i}", params, a, factor, self.activation.absorbs_scale)
            if keep_hidden:
                kept.append((factor * u).mT)
            a, factor = self.activation.absorb(u, factor)
        u, factor = _apply(self.head, "head", params, a, factor, True)
        return [*kept, (factor * u).mT]

    def _flatten(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[1:]) != self.in_features:
            raise ConfigError(
                f"samples of shape {tuple(x.shape[1:])} came to a network built for {self.input_shape}:"
                " leave input_shape out of the configuration to take it from the data."
            )
        return x.reshape(x.shape[0], self.in_features)


def _apply(
    layer: NTKLinear, name: str, params: Mapping[str, Tensor], a: Tensor, factor: float, defer: bool
) -> tuple[Tensor, float]:
    bias = params.get(f"{name}.bias")
    return layer.apply_members(a, factor, params[f"{name}.weight"], bias, defer=defer)


def _check_sizes(width: int, depth: int, head: str) -> None:
    require_size("width", width)
    require_depth(depth, least=0)
    if head not in tuple(_HEAD_POWERS):
        raise ConfigError(f"head is {head!r}, expected 'ntk' or 'mean_field': choose one of the two.")
