"""FixedBatchNorm: BatchNorm as it is in evaluation, a layer that is affine in each channel."""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError


class FixedBatchNorm(nn.Module):
    """y = weight (x - running_mean)/sqrt(running_var + eps) + bias by channel, in training too: (n, channels, ...).

    The statistics are constants and do not couple samples. Parameters and buffers have the names that they have in
    ``torch.nn.BatchNorm2d``, so its state_dict fits. Without parameters, weight is 1 and bias 0.

    Args:
        channels: number of channels.
        eps: added to the variance.
        affine: whether there are weight and bias.

    >>> layer = FixedBatchNorm(1, eps=0.0)
    >>> _ = layer.running_var.fill_(4.0)
    >>> layer(torch.tensor([[2.0], [4.0]]))
    tensor([[1.],
            [2.]], grad_fn=<AddBackward0>)
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @classmethod
    def of(cls, layer: nn.modules.batchnorm._BatchNorm, name: str) -> Self:
        """The layer with the parameters and statistics of a BatchNorm.

        Args:
            layer: BatchNorm of any dimension.
            name: of the layer, for the error.

        Raises:
            ConfigError: it keeps no running statistics, so its output depends on the batch in evaluation, too.
        """
        if layer.running_mean is None or layer.running_var is None:
            raise ConfigError(
                f"the BatchNorm {name} keeps no running statistics, so there is nothing to fix it to: set its "
                "track_running_stats to True, or batch_norm to none"
            )
        fixed = cls(layer.num_features, layer.eps, layer.affine)
        fixed.load_state_dict({n: t for n, t in layer.state_dict().items() if n in fixed.state_dict()})
        return fixed.to(layer.running_mean.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised inputs, of the shape of ``x``."""

        def by_channel(values: Tensor) -> Tensor:
            return values.reshape(1, -1, *(1,) * (x.ndim - 2))

        normalised = (x - by_channel(self.running_mean)) * by_channel((self.running_var + self.eps).rsqrt())
        if self.weight is None:
            return normalised
        return normalised * by_channel(self.weight) + by_channel(cast(Tensor, self.bias))
