"""Learning rates by layer: factors of a member's learning rate, given by name or those of muP.

The weights of a member are one parameter of the optimizer. A rate by layer is applied to the step that the optimizer
has taken: dw <- dw_before + c (dw_after - dw_before), with a factor c for each entry. For an optimizer whose step is
proportional to the learning rate this is its step with c lr.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lazy_lightning.errors import ConfigError, suggestion
from lazy_lightning.nn.convolution import NTKConv2d
from lazy_lightning.nn.layers import NTKLinear
from lazy_lightning.nn.members import MemberNetwork

LayerRates = Literal["mup"] | Mapping[str, float]
"""``mup``, or factors by the name of a layer or parameter; 1 for those that are not named."""

_NORMALISED = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad")
"""Optimizers whose step does not depend on the scale of the gradient."""
_NOT_PROPORTIONAL = ("Rprop", "ASGD")
"""Optimizers whose step is not proportional to the learning rate."""


def check_layer_rates(given: LayerRates | None, optimizer: Optimizer) -> None:
    """Checks rates by layer before the network is known.

    Raises:
        ConfigError: a factor is not a number >= 0, or the optimizer has no such rates.
    """
    if given is None:
        return
    name = type(optimizer).__name__
    if name in _NOT_PROPORTIONAL:
        raise ConfigError(f"layer_rates need steps proportional to the learning rate, which those of {name} are not")
    if given == "mup":
        if name not in ("SGD", *_NORMALISED):
            raise ConfigError(f"layer_rates: mup is known for SGD and {', '.join(_NORMALISED)}, got {name}")
        return
    if not isinstance(given, Mapping):
        raise ConfigError(f"layer_rates is {given!r}, expected mup, or a factor for each layer such as {{head: 0.1}}")
    for layer, factor in given.items():
        if not isinstance(factor, Real) or isinstance(factor, bool) or not 0 <= factor < math.inf:
            raise ConfigError(f"layer_rates has the factor {factor!r} for {layer}, expected a number >= 0")


def layer_factors(network: MemberNetwork, given: LayerRates | None, optimizer: Optimizer) -> Tensor | None:
    """Returns the factor of the learning rate for each entry of a member's weights, (N,); None if all are 1.

    muP, in NTK parametrisation with sqrt(h) alpha fixed as h grows (arXiv:2011.14522, arXiv:2203.03466): with SGD all
    factors are 1. A step of Adam changes each entry by about lr, and the contributions of all inputs of a neuron add
    up, so weights have the factor 1/sqrt(fan_in), but for those of the output layer, whose factor is 1, as is that of
    biases. Then each preactivation changes by about lr, and F by about lr/gamma, gamma = 1/(sqrt(h) alpha).

    Args:
        network: whose layers are meant.
        given: ``mup``, or factors by the name of a layer or parameter.
        optimizer: any over the weights; its class decides on muP.

    Raises:
        ConfigError: a name is unknown, or muP is not known for a layer of the network.
    """
    check_layer_rates(given, optimizer)
    if given is None or (given == "mup" and type(optimizer).__name__ == "SGD"):
        return None
    factors = _mup_of_adam(network) if given == "mup" else _named(network, given)
    return torch.cat(
        [torch.full((size,), c, dtype=torch.float64) for size, c in zip(network.sizes, factors, strict=True)]
    )


def scale_steps(optimizer: Optimizer, rows: Sequence[nn.Parameter], factors: Tensor) -> None:
    """Lets each step of an optimizer change the rows (N,) by its own change times the factors (N,)."""
    factors = factors.to(rows[0])  # once: the rows are of one device and precision
    before: list[Tensor] = []

    def keep(*_: Any) -> None:
        before[:] = [row.detach().clone() for row in rows]

    @torch.no_grad()
    def scale(*_: Any) -> None:
        for row, old in zip(rows, before, strict=True):
            row.copy_(old + factors * (row - old))
        before.clear()

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(scale)


def _mup_of_adam(network: MemberNetwork) -> list[float]:
    head = getattr(network.template, "head", None)
    if not isinstance(head, NTKLinear):
        raise ConfigError(
            f"layer_rates: mup needs an output layer named head in NTK parametrisation, which "
            f"{type(network.template).__name__} does not have: give a factor for each layer instead"
        )
    return [_factor(network.template, name, head) for name in network.names]


def _factor(template: nn.Module, name: str, head: nn.Module) -> float:
    owner, _, parameter = name.rpartition(".")
    layer = template.get_submodule(owner)
    if not isinstance(layer, (NTKLinear, NTKConv2d)):
        raise ConfigError(
            f"layer_rates: mup is known for layers in NTK parametrisation, got {type(layer).__name__} ({name}): "
            "set parametrisation: ntk, or give a factor for each layer"
        )
    if parameter == "bias" or layer is head:
        return 1.0
    return 1 / math.sqrt(layer.weight[0].numel())


def _named(network: MemberNetwork, given: Mapping[str, float]) -> list[float]:
    for name in given:
        if name not in network.layers and name not in network.names:
            known = [*network.layers, *network.names]
            raise ConfigError(
                f"layer_rates has {name!r}, expected a layer or parameter of the network{suggestion(name, known)}; its "
                f"layers are {', '.join(network.layers)}"
            )
    return [float(given.get(name, given.get(name.rpartition(".")[0], 1.0))) for name in network.names]
