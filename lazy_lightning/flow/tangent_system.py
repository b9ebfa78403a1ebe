"""The linear system of an implicit step in the space of outputs: (D^-1 + s Theta) q = r, D = S S^T, by Cholesky.

(D^-1 + s Theta)^-1 = S (1 + s S^T Theta S)^-1 S^T, which needs no inverse of D: a sample with zero curvature drops out.
"""

from __future__ import annotations

import torch
from torch import Tensor


def factorized(kernel: Tensor, root: Tensor, scale: Tensor) -> Tensor:
    """(R, m, m) the Cholesky factor of 1 + s S^T Theta S; a member whose system is not finite gets NaN.

    Args:
        kernel: (R, m, m) Theta.
        root: (R, n) or (R, n, c, c) S.
        scale: (R,) s.
    """
    system = _between(kernel, root).mul_(scale.to(kernel.dtype).view(-1, 1, 1))
    system.diagonal(dim1=1, dim2=2).add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(system)
    found: Tensor = factor.masked_fill_((failed != 0).view(-1, 1, 1), torch.nan)
    return found


def solved(factor: Tensor, root: Tensor, right: Tensor) -> Tensor:
    """(R, m) q from r (R, m)."""
    inner = torch.cholesky_solve(times(root, right, transposed=True).to(factor.dtype).unsqueeze(2), factor)
    return times(root, inner.squeeze(2).to(right.dtype))


def product(kernel: Tensor, vector: Tensor) -> Tensor:
    """(R, m) Theta v."""
    return (kernel @ vector.to(kernel.dtype).unsqueeze(2)).squeeze(2).to(vector.dtype)


def times(root: Tensor, vector: Tensor, *, transposed: bool = False) -> Tensor:
    """(R, m) S v or S^T v."""
    if root.ndim == 2:
        return root * vector
    blocks = vector.view(*root.shape[:3], 1)
    return ((root.mT if transposed else root) @ blocks).reshape(vector.shape)


def _between(kernel: Tensor, root: Tensor) -> Tensor:
    """(R, m, m) S^T Theta S."""
    if root.ndim == 2:
        root = root.to(kernel.dtype)
        return kernel * root.unsqueeze(1) * root.unsqueeze(2)
    members, samples, outputs = root.shape[:3]
    root = root.to(kernel.dtype)
    right = torch.einsum("rinb,rnbc->rinc", kernel.view(members, -1, samples, outputs), root)
    both = torch.einsum("rnab,rnaj->rnbj", root, right.reshape(members, samples, outputs, -1))
    return both.reshape(kernel.shape)
