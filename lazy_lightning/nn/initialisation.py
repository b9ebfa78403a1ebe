"""How the layers of a convolutional network are made: in NTK parametrisation, or as ordinary layers of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import activation as build_activation
from lazy_lightning.nn.activations import plain_activation
from lazy_lightning.nn.convolution import NTKConv2d
from lazy_lightning.nn.fc import Head
from lazy_lightning.nn.layers import NTKLinear

Parametrisation = Literal["ntk", "standard"]
Fan = Literal["in", "average"]


@dataclass(frozen=True)
class Initialisation:
    """Makes layers and nonlinearities of one kind.

    * ``ntk``: weights N(0, 1), z = gain W x / sqrt(fan_in), and phi normalised to E[phi(z)^2] = 1 (arXiv:1906.08034).
    * ``standard``: ``nn.Conv2d`` and ``nn.Linear`` with weights N(0, gain^2 / fan) and the plain phi; biases start at
      zero. The fan is fan_in (He), or the average of fan_in and fan_out (Glorot, in arXiv:1812.07956 with gain 1).

    Where the gain is left, it is 1 for ``ntk``; for ``standard`` it is 1 in the first layer and E[phi(z)^2]^(-1/2) in
    all others, sqrt(2) for relu. Both then start as the same random function, and differ in what gradient descent
    makes of it: a layer of ``ntk`` learns 1/fan_in times as fast.

    Args:
        activation: by name, as of :func:`~lazy_lightning.nn.activations.activation`.
        parametrisation: see above.
        gain: see above; given, it is that of all layers.
        fan: of ``standard``.
        bias: scale of the biases, 0 for none; ``standard`` has them or not.
        head: the last layer divides by sqrt(h), or by h (``mean_field``, of ``ntk`` alone).

    Raises:
        ConfigError: an option has no such value, or does not go with the parametrisation.
    """

    activation: str = "relu"
    parametrisation: Parametrisation = "ntk"
    gain: float | None = None
    fan: Fan = "in"
    bias: float = 0.0
    head: Head = "ntk"

    def __post_init__(self) -> None:
        for name, known in (("parametrisation", Parametrisation), ("fan", Fan), ("head", Head)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(get_args(known))}")
        if self.parametrisation == "standard" and self.head != "ntk":
            raise ConfigError("head: mean_field divides by h, which goes with parametrisation: ntk alone")
        if self.parametrisation == "ntk" and self.fan != "in":
            raise ConfigError("fan: average goes with parametrisation: standard alone; ntk divides by sqrt(fan_in)")
        if self.gain is not None and not (math.isfinite(self.gain) and self.gain > 0):
            raise ConfigError(f"gain is {self.gain}, expected a positive number: leave it out for the usual one")
        if not (math.isfinite(self.bias) and self.bias >= 0):
            raise ConfigError(f"bias is {self.bias}, expected a scale >= 0: set 0 for none")
        build_activation(self.activation)

    def nonlinearity(self) -> nn.Module:
        """A new one: each place of a network has its own."""
        made = build_activation(self.activation)
        if self.parametrisation == "ntk":
            return made
        return nn.ReLU() if made.name == "relu" else plain_activation(made)

    def convolution(
        self, channels: int, out: int, size: int, stride: int = 1, padding: int = 0, *, first: bool = False
    ) -> nn.Conv2d:
        """A layer of filters of ``size`` x ``size``; ``first`` if it sees the images."""
        gain = self._gain(first)
        if self.parametrisation == "ntk":
            return NTKConv2d(channels, out, size, stride, padding, self.bias, gain)
        layer = nn.Conv2d(channels, out, size, stride, padding, bias=self.bias > 0)
        self._draw(layer, gain, channels * size**2, out * size**2)
        return layer

    def last(self, features: int, outputs: int) -> nn.Module:
        """The linear layer from the features to the outputs."""
        if self.parametrisation == "ntk":
            made = NTKLinear(features, outputs, self.bias, fan_in_power=1.0 if self.head == "mean_field" else 0.5)
            made.scale *= self._gain(False)
            return made
        layer = nn.Linear(features, outputs, bias=self.bias > 0)
        self._draw(layer, self._gain(False), features, outputs)
        return layer

    def _gain(self, first: bool) -> float:
        if self.gain is not None:
            return self.gain
        return 1.0 if first or self.parametrisation == "ntk" else build_activation(self.activation).scale

    def _draw(self, layer: nn.Conv2d | nn.Linear, gain: float, fan_in: int, fan_out: int) -> None:
        fan = fan_in if self.fan == "in" else (fan_in + fan_out) / 2
        nn.init.normal_(layer.weight, std=gain * fan**-0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
