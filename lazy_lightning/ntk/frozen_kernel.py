"""The tangent kernels of an ensemble at given weights, as the matrices that a kernel flow takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.ntk.empirical import empirical_ntk
from lazy_lightning.ntk.factors import Output
from lazy_lightning.ntk.joint_kernel import joint_kernel
from lazy_lightning.ntk.kernel_plan import LayerChoice
from lazy_lightning.ntk.tile_ranks import TileRanks

OutputMode = Literal["full", "mean"]


def frozen_kernels(
    network: MemberNetwork,
    weights: Tensor,
    buffers: Mapping[str, Tensor],
    x1: Tensor,
    x2: Tensor | None,
    *,
    outputs: int,
    kernel_outputs: OutputMode = "full",
    layers: LayerChoice = None,
    ranks: TileRanks | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(E, n1 c, n2 c) between all pairs of samples and outputs, or (E, n1, n2) where the outputs share a kernel.

    Args:
        network: of the ensemble.
        weights: (E, N)
        buffers: in which members differ.
        x1: (n1, ...)
        x2: (n2, ...); None for x1.
        outputs: c.
        kernel_outputs: ``full`` for the first, ``mean`` for the second form; the same for c = 1.
        layers: the part of some layers alone.
        ranks: processes that compute the tiles in turn, and all get the whole.
        dtype: in which to compute; that of the weights by default.
    """
    full = kernel_outputs == "full" and outputs > 1
    output: Output = "full" if full else "mean"
    kernel = empirical_ntk(
        network, weights, x1, x2, output=output, layers=layers, buffers=buffers, ranks=ranks, dtype=dtype
    )
    return joint_kernel(kernel) if full else kernel
