"""The spectrum of a kernel matrix: eigenvalues, effective rank, and where the labels lie in it.

A kernel is (..., n, n), symmetric, with any leading member axes; all is computed in float64. Eigenvalues come in
descending order. A kernel that is not finite gives NaN for its member, and leaves the other members alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.alignment import centered_kernel, check_square, target_matrix


class Eigensystem(NamedTuple):
    """K = V diag(values) V^T."""

    values: Tensor
    """(..., n) float64, descending."""
    vectors: Tensor
    """(..., n, n) float64, the eigenvectors as columns."""


class LabelOverlap(NamedTuple):
    """The labels in the eigenbasis of a kernel."""

    eigenvalues: Tensor
    """(..., n) float64, descending."""
    share: Tensor
    """(..., n) float64: the share of ‖y‖^2 on each eigenvector. Sums to 1."""

    @property
    def cumulative(self) -> Tensor:
        """(..., n): the share of ‖y‖^2 on the first 1, 2, ..., n eigenvectors."""
        return self.share.cumsum(-1)


def eigenvalues(kernel: Tensor) -> Tensor:
    """The eigenvalues in descending order, (..., n) float64. The lower triangle is read.

    Those of a float64 kernel are right to about 1e-16 lambda_max, those of a float32 kernel to 1e-7 lambda_max: the
    entries have been rounded. So the smallest may come out negative.

    Raises:
        ConfigError: the kernel is not square.

    >>> eigenvalues(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    tensor([3., 1.], dtype=torch.float64)
    """
    matrix, finite = _decomposable(kernel)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values.flip(-1).where(finite.unsqueeze(-1), torch.nan)


def eigensystem(kernel: Tensor) -> Eigensystem:
    """Eigenvalues in descending order and their eigenvectors. The lower triangle is read.

    Raises:
        ConfigError: the kernel is not square.
    """
    matrix, finite = _decomposable(kernel)
    values, vectors = torch.linalg.eigh(matrix)
    return Eigensystem(
        values.flip(-1).where(finite.unsqueeze(-1), torch.nan),
        vectors.flip(-1).where(finite[..., None, None], torch.nan),
    )


def effective_rank(kernel: Tensor) -> Tensor:
    """The participation ratio (sum lambda)^2 / sum lambda^2 = tr(K)^2/‖K‖_F^2, (...,): no decomposition is made.

    1 for a kernel of rank 1, n for the identity. Directions weigh by lambda^2, so it counts the top of the spectrum;
    :func:`entropy_rank` sees more of the tail. NaN for a zero kernel.

    Raises:
        ConfigError: the kernel is not square.

    >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.5])))  # 6.25/2.25
    tensor(2.7778, dtype=torch.float64)
    """
    check_square(kernel)
    trace = kernel.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)
    return trace.square() / kernel.double().square().sum((-2, -1))


def entropy_rank(eigenvalues: Tensor) -> Tensor:
    """exp(H) with H = -sum p ln p and p = lambda / sum lambda, from eigenvalues (..., n); (...,) float64.

    Negative eigenvalues are rounding and count as zero. At least :func:`effective_rank`, at most n. NaN if all are
    zero.

    >>> entropy_rank(torch.tensor([1.0, 1.0, 0.5]))  # 5/2^(4/5)
    tensor(2.8717, dtype=torch.float64)
    """
    positive = eigenvalues.double().clamp(min=0)
    p = positive / positive.sum(-1, keepdim=True)
    return torch.exp(-torch.xlogy(p, p).sum(-1))


def label_overlap(kernel: Tensor, y: Tensor, *, centered: bool = False, rtol: float | None = None) -> LabelOverlap:
    """The share of ‖y‖^2 on each eigenvector v_i of the kernel, (v_i . y)^2/‖y‖^2, summed over outputs.

    Within the span of eigenvectors of one eigenvalue the basis is arbitrary and only the share of the span means
    something. Eigenvalues nearer to their neighbour than ``rtol`` lambda_max are taken to be one (a chain of near
    neighbours too), and their eigenvectors get equal parts of the share of their span: the mean over its bases.

    Args:
        kernel: (..., n, n).
        y: (n,) floats, (n, c) floats, or (n,) classes, which stand for their one-hot targets.
        centered: take H K H and H y, with H = 1 - 11^T/n, instead of K and y: what a constant explains is left out.
        rtol: None is n eps, the rounding of the decomposition.

    Returns:
        Eigenvalues, those of H K H if centered, and shares. NaN shares if y is zero, or constant and centered.

    Raises:
        ConfigError: the shapes do not fit.

    >>> overlap = label_overlap(torch.diag(torch.tensor([4.0, 2.0, 1.0])), torch.tensor([0.0, 3.0, 4.0]))
    >>> overlap.share
    tensor([0.0000, 0.3600, 0.6400], dtype=torch.float64)
    """
    check_square(kernel)
    targets = target_matrix(y, kernel, centered=centered)
    values, vectors = eigensystem(centered_kernel(kernel) if centered else kernel)
    squares = (vectors.mT @ targets).square().sum(-1)
    share = squares / torch.linalg.vector_norm(targets).square()
    return LabelOverlap(values, _mean_over_equal(values, share, rtol))


def label_rank(overlap: LabelOverlap, share: float = 0.9) -> Tensor:
    """How many of the first eigenvectors hold this share of ‖y‖^2, (...,) float64, NaN where the overlap is.

    Rounding is forgiven: a cumulative share that misses ``share`` by n eps counts.

    Raises:
        ConfigError: ``share`` is not between 0 and 1.

    >>> overlap = label_overlap(torch.diag(torch.tensor([4.0, 2.0, 1.0])), torch.tensor([0.0, 3.0, 4.0]))
    >>> label_rank(overlap, 0.3), label_rank(overlap, 0.5)
    (tensor(2., dtype=torch.float64), tensor(3., dtype=torch.float64))
    """
    if not 0 < share < 1:
        raise ConfigError(f"share is {share}, expected a number between 0 and 1: choose for example 0.9.")
    cumulative = overlap.cumulative
    slack = cumulative.shape[-1] * torch.finfo(torch.float64).eps
    missing = (cumulative < share - slack).sum(-1) + 1
    return missing.double().where(~cumulative.isnan().any(-1), torch.nan)


def _decomposable(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels in float64 with an identity where one is not finite (LAPACK would refuse them all), and which are."""
    check_square(kernel)
    finite = kernel.isfinite().all(-1).all(-1)
    one = torch.eye(kernel.shape[-1], dtype=torch.float64, device=kernel.device)
    return kernel.double().where(finite[..., None, None], one), finite


def _mean_over_equal(values: Tensor, share: Tensor, rtol: float | None) -> Tensor:
    """``share`` (..., n) averaged over each run of equal ``values`` (..., n, descending)."""
    n = values.shape[-1]
    rtol = n * torch.finfo(torch.float64).eps if rtol is None else rtol
    tolerance = rtol * values.abs().amax(-1, keepdim=True)
    new = values[..., :-1] - values[..., 1:] > tolerance
    run = torch.nn.functional.pad(new.cumsum(-1), (1, 0))
    totals = torch.zeros_like(share).scatter_add(-1, run, share)
    counts = torch.zeros_like(share).scatter_add(-1, run, torch.ones_like(share))
    return (totals / counts).gather(-1, run)
