"""The plain convolutional network of arXiv:1906.08034: strided stages of equal layers, and the mean over pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.image_network import ImageNetwork
from lazy_lightning.nn.sizes import require_depth


class CNN(ImageNetwork):
    """``stages`` stages of ``layers`` convolutions; the first one of a stage has stride 2.

    Stage i has round(width growth^i) channels. All convolutions have filters of ``filter_size`` pixels, and a
    nonlinearity behind them.

    Args:
        width: channels of the first stage.
        stages: L1.
        layers: L2, convolutions of a stage.
        filter_size: side of the filters.
        padding: zeros around the image, at each convolution.
        stride_first: whether the very first convolution has stride 2 as well.
        growth: of the channels from a stage to the next.
        activation: and the other options: see :class:`~lazy_lightning.nn.image_network.ImageNetwork`.

    >>> import torch
    >>> net = CNN(width=4, stages=2, layers=1, input_shape=(1, 8, 8))
    >>> net(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1])

    Raises:
        ConfigError: a value out of range, or images that get smaller than the filters.
    """

    def __init__(
        self,
        width: int = 16,
        stages: int = 2,
        layers: int = 2,
        filter_size: int = 5,
        padding: int = 1,
        stride_first: bool = True,
        growth: float = 1.0,
        activation: str = "softplus(5)",
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
        **options: Any,
    ) -> None:
        check_arguments(CNN, locals())
        super().__init__(activation, input_shape=input_shape, num_outputs=num_outputs, **options)
        _check(width=width, stages=stages, layers=layers, filter_size=filter_size, growth=growth)
        require_depth(stages * layers, name="stages * layers")
        made: list[nn.Module] = []
        channels, *sides = self.input_shape
        for stage in range(stages):
            out = max(1, round(width * growth**stage))
            for layer in range(layers):
                stride = 2 if layer == 0 and (stage > 0 or stride_first) else 1
                sides = [_next_side(side, filter_size, stride, padding, len(made) // 2 + 1) for side in sides]
                made.append(self.kind.convolution(channels, out, filter_size, stride, padding, first=not made))
                made.append(self.kind.nonlinearity())
                channels = out
        self.assemble(made, channels)


def _next_side(side: int, size: int, stride: int, padding: int, layer: int) -> int:
    if side + 2 * padding < size:
        raise ConfigError(
            f"convolution {layer} would see images of side {side} with filters of size {size} and padding {padding}: "
            "set fewer stages or layers, a smaller filter_size, or more padding."
        )
    return (side + 2 * padding - size) // stride + 1


def _check(**sizes: float) -> None:
    for name, value in sizes.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}, expected a finite number > 0: set a larger {name}.")
