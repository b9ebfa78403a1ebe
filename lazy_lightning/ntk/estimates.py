"""The largest eigenvalues of a kernel that is never formed, and its trace from random vectors, each with its error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.operator import NTKOperator
from lazy_lightning.seeding import generator


class Eigenpairs(NamedTuple):
    """Some eigenvalues, largest first."""

    values: Tensor
    """(k,)"""
    vectors: Tensor
    """(n c, k), of norm one."""
    errors: Tensor
    """(k,) ‖K v - lambda v‖: an eigenvalue of K lies within this of each value."""


class Estimate(NamedTuple):
    """A number from random vectors."""

    value: Tensor
    """() or (E,)"""
    error: Tensor
    """() or (E,) its standard error."""


def top_eigenpairs(operator: NTKOperator, count: int, *, tolerance: float = 0.0, seed: int = 0) -> Eigenpairs:
    """The ``count`` largest eigenpairs of a symmetric kernel by Lanczos' method (ARPACK).

    Args:
        operator: of one set of samples, without a member axis.
        count: 1 <= count < n c.
        tolerance: relative, of the eigenvalues; 0 for rounding.
        seed: of the first vector, so that a repeated call gives the same.

    Raises:
        ConfigError: for an operator that is not symmetric, or a count out of range.
    """
    from scipy.sparse.linalg import eigsh

    size = operator.shape[0]
    if not operator.symmetric:
        raise ConfigError("eigenpairs are those of the kernel of one set of samples: leave x2 out")
    if not 1 <= count < size:
        raise ConfigError(f"count is {count}, expected 1 to {size - 1}: Lanczos' method needs fewer than all {size}")
    start = np.asarray(random_start(size, seed))
    linear = operator.to_scipy()
    values, vectors = eigsh(linear, k=count, which="LA", tol=tolerance, v0=start.astype(linear.dtype))
    order = torch.from_numpy(np.argsort(values)[::-1].copy())
    found = torch.from_numpy(vectors).to(operator.device)[:, order.to(operator.device)]
    sizes = torch.from_numpy(values)[order].to(operator.device)
    return Eigenpairs(sizes, found, torch.linalg.vector_norm(operator @ found - found * sizes, dim=0))


def hutchinson_trace(operator: NTKOperator, vectors: int = 64, *, seed: int = 0) -> Estimate:
    """tr K = E[v^T K v] for v of independent signs, with the standard error of the mean.

    Where the factors fit in memory, :func:`~lazy_lightning.ntk.empirical_ntk_diagonal` is exact and faster.

    Raises:
        ConfigError: for an operator that is not symmetric, or fewer than two vectors.
    """
    if not operator.symmetric:
        raise ConfigError("the trace is that of the kernel of one set of samples: leave x2 out")
    if vectors < 2:
        raise ConfigError(f"an error bar needs at least 2 vectors, got {vectors}")
    shape = (*(() if operator.members is None else (operator.members,)), operator.shape[0], vectors)
    signs = random_signs(*shape, seed=seed).to(operator.device, operator.dtype)
    return mean_of((signs * (operator @ signs)).sum(dim=-2))


def mean_of(forms: Tensor) -> Estimate:
    """The mean of random numbers (..., k) over the last axis, with its standard error."""
    return Estimate(forms.mean(dim=-1), forms.std(dim=-1) / forms.shape[-1] ** 0.5)


def random_signs(*shape: int, seed: int = 0) -> Tensor:
    """Independent signs of this shape, float64 on the host, the same at every call."""
    return (2 * torch.randint(0, 2, shape, generator=generator("hutchinson", seed)) - 1).double()


def random_start(size: int, seed: int = 0) -> Tensor:
    """(size,) normal numbers, float64 on the host, the same at every call: where Lanczos' method starts."""
    return torch.randn(size, dtype=torch.float64, generator=generator("lanczos", seed))
