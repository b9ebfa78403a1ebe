"""ResNet-18 without normalisation, for small images (arXiv:1812.07956)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.nn.image_network import ImageNetwork, widened
from lazy_lightning.nn.initialisation import Initialisation
from lazy_lightning.nn.mixing import Mixing, shortcut

_CHANNELS = (64, 128, 256, 512)
_BLOCKS = 2


class BasicBlock(nn.Module):
    """phi(conv2(phi(conv1 x)) + shortcut x), both convolutions 3 x 3, the first one strided."""

    def __init__(self, kind: Initialisation, channels: int, out: int, stride: int, angle: float | None) -> None:
        super().__init__()
        self.conv1 = kind.convolution(channels, out, 3, stride, 1)
        self.act1 = kind.nonlinearity()
        self.conv2 = kind.convolution(out, out, 3, 1, 1)
        self.shortcut = shortcut(kind, channels, out, stride)
        self.mix = Mixing(angle)
        self.act2 = kind.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, out, H / stride, W / stride)."""
        branch = self.conv2(self.act1(self.conv1(x)))
        return cast(Tensor, self.act2(self.mix(self.shortcut(x), branch)))


class ResNet18(ImageNetwork):
    """A 3 x 3 convolution, four stages of two basic blocks with 64, ..., 512 channels, and one linear layer.

    Args:
        widening: multiplies all channels.
        angle: mix shortcut and branch by cos and sin of it, in degrees; null for their sum, which lets the variance of
            the preactivations grow from block to block.
        options: see :class:`~lazy_lightning.nn.image_network.ImageNetwork`.

    >>> import torch
    >>> ResNet18(widening=1 / 32, input_shape=(1, 8, 8))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1])

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        widening: float = 1.0,
        angle: float | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
        **options: Any,
    ) -> None:
        check_arguments(ResNet18, locals())
        super().__init__(input_shape=input_shape, num_outputs=num_outputs, **options)
        channels = widened(_CHANNELS[0], widening)
        stem = self.kind.convolution(self.input_shape[0], channels, 3, padding=1, first=True)
        made: list[nn.Module] = [stem, self.kind.nonlinearity()]
        for stage, out in enumerate(widened(c, widening) for c in _CHANNELS):
            for block in range(_BLOCKS):
                stride = 2 if block == 0 and stage > 0 else 1
                made.append(BasicBlock(self.kind, channels, out, stride, angle))
                channels = out
        self.assemble(made, channels)
