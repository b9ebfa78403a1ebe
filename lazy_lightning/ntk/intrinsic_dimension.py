"""The intrinsic dimension of a point cloud from each point's two nearest neighbours.

E. Facco, M. d'Errico, A. Rodriguez, A. Laio, *Estimating the intrinsic dimension of datasets by a minimal neighborhood
information*, doi:10.1038/s41598-017-11873-y. Where the density is constant over the reach of the second neighbour, the
ratio of their distances mu = r2/r1 has P(mu > x) = x^-d on a manifold of dimension d, whatever the density.

The points may be those of a kernel's feature space: d_ij^2 = K_ii + K_jj - 2 K_ij.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.alignment import check_square
from lazy_lightning.ntk.one_device import require_one_device

_SAME = 16.0
"""Two points are one if d^2 is below this many roundings of K_ii + K_jj, the error of the subtraction."""


class Dimension(NamedTuple):
    """An estimate of the intrinsic dimension."""

    value: Tensor
    """(...,) float64."""
    error: Tensor
    """(...,) float64: its standard deviation were the ratios independent. Neighbours share distances: in a plane the
    true one is 1.2 times as large."""


def intrinsic_dimension(kernel: Tensor, *, discard: float = 0.1) -> Dimension:
    """The intrinsic dimension of the samples in the feature space of a kernel (..., n, n); see :func:`two_nn`.

    It is the same for a K + b 11^T as for K, a > 0. Points at distance zero are one point: all but the first are left
    out, as points and as neighbours. Zero is d^2 <= 16 eps (K_ii + K_jj), with eps of the kernel's dtype. Distances
    not far above this, (K eps)^(1/2), are noise: compute the kernel of a dense cloud in float64. A kernel that is not
    finite gives NaN for its member.

    Raises:
        ConfigError: the kernel is not square or has less than three samples, or ``discard`` is not in [0, 1).
    """
    check_square(kernel)
    K = kernel.double()
    diagonal = K.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.unsqueeze(-1) + diagonal.unsqueeze(-2)
    squared = scale - 2 * K
    same = squared <= _SAME * torch.finfo(kernel.dtype).eps * scale
    finite = K.isfinite().all(-1).all(-1)
    ratios = neighbour_ratios(squared.clamp(min=0).sqrt(), same)
    return two_nn(ratios.where(finite.unsqueeze(-1), torch.nan), discard=discard)


def intrinsic_dimension_of_points(points: Tensor, *, discard: float = 0.1) -> Dimension:
    """The intrinsic dimension of points (..., n, p) under the Euclidean distance; see :func:`two_nn`.

    Equal points are one point. Distances are summed from differences, not from Gram matrices, so near points keep
    their digits. Memory is that of the (..., n, n) distances.

    Raises:
        ConfigError: the points have no two axes, there are less than three, or ``discard`` is not in [0, 1).
    """
    if points.ndim < 2:
        raise ConfigError(f"points have shape {tuple(points.shape)}, expected (..., n, p): give one row for each.")
    x = points.double()
    distances: Tensor = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    finite = x.isfinite().all(-1).all(-1)
    ratios = neighbour_ratios(distances, distances == 0)
    return two_nn(ratios.where(finite.unsqueeze(-1), torch.nan), discard=discard)


def neighbour_ratios(distances: Tensor, same: Tensor) -> Tensor:
    """mu = r2/r1 of each point from the distances (..., n, n); NaN for points that repeat an earlier one.

    Args:
        distances: (..., n, n), the diagonal is not read.
        same: (..., n, n) bool, which points are one.

    Returns:
        (..., n), at least 1.

    >>> x = torch.tensor([0.0, 1.0, 3.0, 3.0, 7.0])
    >>> d = (x - x[:, None]).abs()
    >>> neighbour_ratios(d, d == 0)
    tensor([3.0000, 2.0000, 1.5000,    nan, 1.5000])
    """
    require_one_device(distances=distances, same=same)
    repeats = same.tril(-1).any(-1)
    self_or_repeat = repeats.unsqueeze(-2) | torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)
    if distances.shape[-1] < 3:
        raise ConfigError(f"an intrinsic dimension needs three points at least, got {distances.shape[-1]}: add points.")
    nearest = distances.masked_fill(self_or_repeat, torch.inf).topk(2, largest=False).values
    return (nearest[..., 1] / nearest[..., 0]).masked_fill(repeats, torch.nan)


def two_nn(ratios: Tensor, *, discard: float = 0.1) -> Dimension:
    """The dimension d from ratios mu (..., n) with P(mu > x) = x^-d; NaNs are left out.

    The largest ratios come from the sparse rim, where the density is not constant. The paper drops a tenth of them and
    fits a line to the distribution of the others; here they are known to be large and no more (censored), and d is
    the estimate of maximum likelihood made unbiased. With the k = N - floor(discard N) smallest of the N ln mu,

        d = (k - 1) / (sum_(i <= k) ln mu_i + (N - k) ln mu_k),      error = d / (k - 2)^(1/2).

    The reference code of arXiv:1906.08034 takes all of them, discard = 0, and has N + 1 in place of N - 1.

    Returns:
        NaN for less than three ratios; inf for points on a lattice, where r2 = r1.

    Raises:
        ConfigError: ``discard`` is not in [0, 1).

    >>> two_nn(torch.tensor([2.0, 2.0, 4.0]), discard=0.0).value  # 2/(4 ln 2)
    tensor(0.7213, dtype=torch.float64)
    """
    if not 0 <= discard < 1:
        raise ConfigError(f"discard is {discard}, expected a share in [0, 1): the paper takes 0.1.")
    total = (~ratios.isnan()).sum(-1)
    kept = total - (discard * total.double()).floor().long()
    logs = ratios.double().log().sort(-1).values  # NaNs come last
    rank = torch.arange(ratios.shape[-1], device=ratios.device)
    known = logs.where(rank < kept.unsqueeze(-1), 0.0).sum(-1)
    largest = logs.gather(-1, (kept - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    # Where nothing is discarded, the largest may be infinite and counts not at all.
    censored = ((total - kept) * largest).where(total > kept, 0.0)
    value = ((kept - 1) / (known + censored)).where(kept >= 3, torch.nan)
    return Dimension(value, value / (kept - 2).clamp(min=0).double().sqrt())
