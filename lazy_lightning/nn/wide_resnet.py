"""Wide residual networks without normalisation (arXiv:1906.08034)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.image_network import ImageNetwork, widened
from lazy_lightning.nn.initialisation import Initialisation
from lazy_lightning.nn.mixing import Mixing, shortcut
from lazy_lightning.nn.sizes import require_depth

_CHANNELS = (16, 32, 64)


class WideBlock(nn.Module):
    """cos(a) shortcut x + sin(a) conv2(phi(conv1(phi(x)))), both convolutions 3 x 3, the second one strided."""

    def __init__(self, kind: Initialisation, channels: int, out: int, stride: int, angle: float | None) -> None:
        super().__init__()
        self.act1 = kind.nonlinearity()
        self.conv1 = kind.convolution(channels, out, 3, 1, 1)
        self.act2 = kind.nonlinearity()
        self.conv2 = kind.convolution(out, out, 3, stride, 1)
        self.shortcut = shortcut(kind, channels, out, stride)
        self.mix = Mixing(angle)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, out, H / stride, W / stride)."""
        branch = self.conv2(self.act2(self.conv1(self.act1(x))))
        return cast(Tensor, self.mix(self.shortcut(x), branch))


class WideResNet(ImageNetwork):
    """A 3 x 3 convolution and three stages of (depth - 4)/6 blocks with 16 k, 32 k, 64 k channels, without BatchNorm.

    Args:
        depth: 6 n + 4.
        widening: k.
        angle: mixes shortcut and branch, in degrees; null for their plain sum.
        stem: channels of the first convolution.
        activation: and the other options: see :class:`~lazy_lightning.nn.image_network.ImageNetwork`.

    >>> import torch
    >>> WideResNet(10, widening=0.25, stem=4, input_shape=(3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 1])

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        depth: int = 28,
        widening: float = 1.0,
        angle: float | None = 45.0,
        stem: int = 16,
        activation: str = "softplus(5)",
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
        **options: Any,
    ) -> None:
        check_arguments(WideResNet, locals())
        super().__init__(activation, input_shape=input_shape, num_outputs=num_outputs, **options)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or stem < 1:
            raise ConfigError(f"depth is {depth}, stem {stem}, expected a depth of 10, 16, 22, 28, ... and stem >= 1")
        require_depth(depth)
        made: list[nn.Module] = [self.kind.convolution(self.input_shape[0], stem, 3, padding=1, first=True)]
        channels = stem
        for stage, out in enumerate(widened(c, widening) for c in _CHANNELS):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                made.append(WideBlock(self.kind, channels, out, stride, angle))
                channels = out
        self.assemble([*made, self.kind.nonlinearity()], channels)
