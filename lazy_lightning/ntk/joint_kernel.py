"""A kernel between several outputs as one matrix."""

from __future__ import annotations

from torch import Tensor

from lazy_lightning.errors import ConfigError


def joint_kernel(kernel: Tensor) -> Tensor:
    """Theta_ij^kl of samples i, j and outputs k, l, (..., n, m, c, c), as the matrix (..., n c, m c) of pairs (i, k).

    >>> import torch
    >>> joint_kernel(torch.arange(4.0).view(1, 1, 2, 2))
    tensor([[0., 1.],
            [2., 3.]])
    """
    if kernel.ndim < 4 or kernel.shape[-1] != kernel.shape[-2]:
        raise ConfigError(
            f"a kernel between outputs has shape {tuple(kernel.shape)}, expected (..., n, m, c, c): compute it for"
            " all pairs of outputs."
        )
    *members, n, m, c, _ = kernel.shape
    return kernel.movedim(-2, -3).reshape(*members, n * c, m * c)
