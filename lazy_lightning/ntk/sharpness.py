"""The ends of the spectrum of a Hessian, and its trace, by products with vectors, for all members at once.

Beside :func:`~lazy_lightning.ntk.estimates.top_eigenpairs`, which restarts until an eigenpair of one kernel is right to
rounding, this is a fixed number of products on the device, for E matrices in one batch: ARPACK has no member axis, and
brings each product to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.estimates import Estimate, mean_of
from lazy_lightning.ntk.spectrum import eigensystem

Product = Callable[[Tensor], Tensor]
"""From vectors (E, N) to H v (E, N), one symmetric matrix a member."""


class Extremes(NamedTuple):
    """The ends of the spectrum of a symmetric matrix, (E,) float64 each."""

    largest: Tensor
    """The largest eigenvalue, from below."""
    smallest: Tensor
    """The smallest eigenvalue, from above."""
    error: Tensor
    """‖H v - largest v‖ of the approximate eigenvector v: an eigenvalue of H lies within this of ``largest``."""


def extreme_eigenvalues(product: Product, start: Tensor, products: int = 20) -> Extremes:
    """The largest and the smallest eigenvalue by Lanczos' method, of E matrices at once.

    The three-term recurrence in the memory of four vectors: what orthogonality it loses copies eigenvalues already
    found, and leaves the ends of the spectrum right (Paige, 1980). From a random start the relative error falls like
    exp(-4 products sqrt(gap)), where gap is the distance of the two largest eigenvalues over the width of the spectrum.

    Args:
        product: see :data:`Product`; its results are not brought to the host.
        start: (E, N) random vectors, not zero.
        products: how many products are taken; N at most.

    Raises:
        ConfigError: ``products`` is less than 1.

    >>> diagonal = torch.tensor([[3.0, 1.0, -2.0]])
    >>> extremes = extreme_eigenvalues(lambda v: diagonal * v, torch.ones(1, 3))
    >>> round(extremes.largest.item(), 5), round(extremes.smallest.item(), 5)
    (3.0, -2.0)
    """
    if products < 1:
        raise ConfigError(f"products is {products}, expected at least 1: set for example products to 20")
    steps = min(products, start.shape[1])
    before, vector = torch.zeros_like(start), start / _length(start)
    beta = torch.zeros_like(start[:, :1])
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(steps):
        image = product(vector) - beta * before
        alpha = (image * vector).sum(dim=1, keepdim=True)
        image = image - alpha * vector
        ended = _length(vector) == 0  # an invariant space has been exhausted
        diagonal.append(torch.where(ended, diagonal[0], alpha) if diagonal else alpha)
        beta = _length(image)
        beside.append(beta)
        before, vector = vector, torch.where(beta == 0, torch.zeros_like(image), image / beta)
    values, vectors = eigensystem(_tridiagonal(torch.cat(diagonal, dim=1), torch.cat(beside, dim=1)[:, :-1]))
    return Extremes(values[:, 0], values[:, -1], beta[:, 0].double() * vectors[:, -1, 0].abs())


def trace_estimate(product: Product, signs: Tensor, members: int) -> Estimate:
    """tr H = E[z^T H z] for z of independent signs +-1, (E,) with the standard error of the mean (Hutchinson, 1990).

    Args:
        product: see :data:`Product`.
        signs: (k, N), k >= 2, see :func:`~lazy_lightning.ntk.estimates.random_signs`; the same for all members.
        members: E.

    Raises:
        ConfigError: there are fewer than two vectors.

    >>> trace_estimate(lambda v: 2 * v, torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]), members=1).value
    tensor([6.], dtype=torch.float64)
    """
    if len(signs) < 2:
        raise ConfigError(f"an error bar needs at least 2 vectors, got {len(signs)}: use more vectors")
    forms = [(z * product(z.expand(members, -1))).sum(dim=1, dtype=torch.float64) for z in signs]
    return mean_of(torch.stack(forms, dim=1))


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return length


def _tridiagonal(diagonal: Tensor, beside: Tensor) -> Tensor:
    return torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
