"""How a residual block joins its branch with its shortcut."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.initialisation import Initialisation


class Mixing(nn.Module):
    """cos(a) shortcut + sin(a) branch; without an angle, their plain sum.

    Two uncorrelated inputs of variance one keep variance one at any angle, and have two in the sum.

    Args:
        angle: a, in degrees.

    Raises:
        ConfigError: the angle is not between 0 and 90.
    """

    def __init__(self, angle: float | None) -> None:
        super().__init__()
        if angle is not None and not 0 <= angle <= 90:
            raise ConfigError(f"angle is {angle}, expected 0 (shortcuts alone) to 90 degrees (no shortcuts)")
        self.angle = angle

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """The outputs (n, ...), of the shape of the inputs."""
        if self.angle is None:
            return shortcut + branch
        radians = math.radians(self.angle)
        return math.cos(radians) * shortcut + math.sin(radians) * branch


def shortcut(kind: Initialisation, channels: int, out: int, stride: int) -> nn.Module:
    """The identity, or a 1 x 1 convolution where the shape changes."""
    if stride == 1 and channels == out:
        return nn.Identity()
    return kind.convolution(channels, out, 1, stride)
