"""The convolution in NTK parametrisation: weights of order one, the scale outside of them (arXiv:1906.08034)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError


class NTKConv2d(nn.Conv2d):
    """z = conv(x, W) / sqrt(C k k) + bias * b, with (n, C, H, W) -> (n, channels, H', W').

    W and b are drawn from N(0, 1) with torch's global generator. With ``bias = 0`` there is no parameter b.

    Args:
        in_channels: C.
        out_channels: channels that come out.
        kernel_size: k, the side of the filter.
        stride: pixels between two positions of the filter.
        padding: zeros around the image.
        bias: the scale of the bias; 0 for none.
        gain: multiplies the weights' scale.

    Raises:
        ConfigError: a size below one, or a bias that is negative or not finite.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        check_arguments(NTKConv2d, locals())
        if min(in_channels, out_channels, kernel_size, stride) < 1 or padding < 0:
            raise ConfigError(
                f"a convolution got {in_channels} channels in, {out_channels} out, filters of size {kernel_size}, "
                f"stride {stride}, padding {padding}, expected all >= 1 and padding >= 0: set larger sizes."
            )
        if not (math.isfinite(bias) and bias >= 0):
            raise ConfigError(f"a convolution got bias = {bias}, expected its scale >= 0: set 0 for no bias.")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias > 0)
        self.bias_scale = float(bias)
        self.scale: float = gain * (in_channels * kernel_size**2) ** -0.5

    def reset_parameters(self) -> None:
        """Draw W, then b, from N(0, 1) with torch's global generator."""
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, input: Tensor) -> Tensor:
        """The preactivation, (n, channels, H', W')."""
        # The weight is scaled rather than the output: it is the smaller of the two.
        bias = None if self.bias is None else self.bias_scale * self.bias
        convolved: Tensor = self._conv_forward(input, self.scale * self.weight, bias)
        return convolved

    def extra_repr(self) -> str:
        """Sizes and scales, for ``print(model)``."""
        sizes = f"{self.in_channels}, {self.out_channels}, size={self.kernel_size}, stride={self.stride}"
        return f"{sizes}, padding={self.padding}, scale={self.scale:.6g}, bias={self.bias_scale:g}"
