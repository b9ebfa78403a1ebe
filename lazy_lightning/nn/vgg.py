"""VGG networks without normalisation, for small images (arXiv:1812.07956)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.image_network import ImageNetwork, widened

Depth = Literal[11, 13, 16, 19]
_CHANNELS = (64, 128, 256, 512, 512)
_LAYERS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(ImageNetwork):
    """Five stages of 3 x 3 convolutions with 64, ..., 512 channels, a 2 x 2 max-pool behind each, and one linear layer.

    Pools are left out once a side of the image is one pixel, so images of any size will do; what is left at the end is
    averaged over pixels (one pixel, for 32 x 32).

    Args:
        depth: 11, 13, 16 or 19 layers with weights, as they are counted in the original with its three linear ones.
        widening: multiplies all channels.
        options: see :class:`~lazy_lightning.nn.image_network.ImageNetwork`.

    >>> import torch
    >>> VGG(11, widening=1 / 16, input_shape=(3, 32, 32), num_outputs=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        depth: Depth = 11,
        widening: float = 1.0,
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
        **options: Any,
    ) -> None:
        check_arguments(VGG, locals())
        super().__init__(input_shape=input_shape, num_outputs=num_outputs, **options)
        if depth not in get_args(Depth):
            raise ConfigError(f"depth is {depth}, expected one of {', '.join(map(str, get_args(Depth)))}")
        made: list[nn.Module] = []
        channels, *sides = self.input_shape
        for out, layers in zip((widened(c, widening) for c in _CHANNELS), _LAYERS[depth], strict=True):
            for _ in range(layers):
                made.append(self.kind.convolution(channels, out, 3, padding=1, first=not made))
                made.append(self.kind.nonlinearity())
                channels = out
            if min(sides) > 1:
                made.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
        self.assemble(made, channels)
