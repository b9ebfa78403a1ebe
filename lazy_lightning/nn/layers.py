"""The linear layer in NTK parametrisation: weights of order one, the scale outside of them.

arXiv:1906.08034: z = W x / sqrt(fan_in) + bias_scale * b, every entry of W and b drawn from
N(0, 1). Under gradient descent the scale acts once on the output and once on the gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError


class NTKLinear(nn.Module):
    """z = x W^T / in_features^fan_in_power + bias * b, with (..., in_features) -> (..., out_features).

    W (out_features, in_features) and b (out_features,) are drawn from N(0, 1) with torch's global generator,
    in torch's default dtype. With ``bias = 0`` there is no parameter b.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: the scale of the bias; 0 for none.
        fan_in_power: 1/2 in NTK parametrisation; 1 for the mean-field output layer (arXiv:1812.07956).

    Raises:
        ConfigError: a size below one, or a bias that is negative or not finite.
    """

    def __init__(self, in_features: int, out_features: int, bias: float = 0.0, *, fan_in_power: float = 0.5) -> None:
        check_arguments(NTKLinear, locals())
        super().__init__()
        _check_layer(in_features, out_features, bias)
        self.in_features = in_features
        self.out_features = out_features
        self.bias_scale = float(bias)
        self.scale: float = in_features**-fan_in_power
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W, then b, from N(0, 1) with torch's global generator."""
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """The preactivation, (..., out_features)."""
        # The weight is scaled rather than the output: it is the smaller of the two when samples are many.
        weight = self.scale * self.weight
        return F.linear(x, weight, None if self.bias is None else self.bias_scale * self.bias)

    def apply_members(
        self, a: Tensor, factor: float, weight: Tensor, bias: Tensor | None, *, defer: bool
    ) -> tuple[Tensor, float]:
        """``(u, c)`` with ``c * u`` the preactivations of E members, features before samples.

        Features come first so that the gradient of ``weight`` is contiguous, ready for a flat buffer.

        Args:
            a: inputs (E, in_features, n), to be multiplied by ``factor``.
            factor: a positive number that the previous layer left to this one.
            weight: (E, out_features, in_features).
            bias: (E, out_features), or None.
            defer: leave all scales to ``c``; otherwise ``c`` is 1.

        Returns:
            ``u`` of shape (E, out_features, n) and ``c``.
        """
        factor *= self.scale
        if not defer:
            # One of the two operands must carry the factor: the smaller one, to spare passes over memory.
            a, weight = (a, factor * weight) if self.out_features <= a.shape[-1] else (factor * a, weight)
            factor = 1.0
        if bias is None:
            return torch.bmm(weight, a), factor
        return torch.baddbmm((self.bias_scale / factor * bias).unsqueeze(-1), weight, a), factor

    def extra_repr(self) -> str:
        """Sizes and scales, for ``print(model)``."""
        return f"{self.in_features}, {self.out_features}, scale={self.scale:.6g}, bias={self.bias_scale:g}"


def _check_layer(in_features: int, out_features: int, bias: float) -> None:
    if in_features < 1 or out_features < 1:
        raise ConfigError(
            f"a linear layer got {in_features} inputs and {out_features} outputs, expected one of each at"
            " least: set larger sizes."
        )
    if not (math.isfinite(bias) and bias >= 0):
        raise ConfigError(
            f"a linear layer got bias = {bias}, expected its scale >= 0: set 0 for no bias, 1 for N(0, 1)."
        )
