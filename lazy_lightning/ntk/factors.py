"""What one layer adds to the tangent kernel, held as factors of its Jacobian; and products of these.

A layer that is linear in its weights, z_t = s W a_t + beta b at positions t (one for a fully connected layer, all
pixels for a convolution), has the Jacobian d f_k / d W = sum_t b_kt (s a_t)^T, with b_kt = d f_k / d z_t. So

    Theta(x, x')_kl = sum_{t, t'} (a_t . a'_t') (b_kt . b'_lt'),

with the scale and a constant for the bias kept inside of a. With one position that is the product of two Gram
matrices, and the Jacobian is never formed. With many positions it may cost less to form it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Output = Literal["full", "diagonal", "trace", "mean"]
Contraction = Literal["full", "diagonal", "trace"]

_SCRATCH_ELEMENTS = 1 << 23
"""Positions times positions are formed for so many numbers at once: 64 MiB in float64."""
_PASSES = 16
"""What reading and writing a number costs, in multiply-adds of a matrix product."""


class Factors(ABC):
    """The Jacobian (E, n, c, P) of one layer in some form. Samples are the second axis of every tensor."""

    @abstractmethod
    def __getitem__(self, samples: slice) -> Factors:
        """Views of some of the samples."""

    @abstractmethod
    def product(self, other: Factors, contraction: Contraction) -> Tensor:
        """J J'^T: (E, n, n') for ``trace``, (E, n, n', c) for ``diagonal``, (E, n, n', c, c) for ``full``."""

    @abstractmethod
    def own_products(self, contraction: Contraction) -> Tensor:
        """The same of each sample with itself alone, (E, n), (E, n, c) or (E, n, c, c)."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The Jacobian itself, (E, n, c, P)."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made from by calling its class on them."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that are held."""
        return sum(tensor.nbytes for tensor in self.tensors())


def concatenated(parts: Sequence[Factors]) -> Factors:
    """The samples of several parts, all of one kind."""
    if len(parts) == 1:
        return parts[0]
    tensors = zip(*(part.tensors() for part in parts), strict=True)
    return type(parts[0])(*(torch.cat(own, dim=1) for own in tensors))


@dataclass(frozen=True)
class Dense(Factors):
    """The Jacobian as it is."""

    jacobian: Tensor
    """(E, n, c, P)"""

    def __getitem__(self, samples: slice) -> Dense:
        return Dense(self.jacobian[:, samples])

    def product(self, other: Factors, contraction: Contraction) -> Tensor:
        """The product with other factors, as one matrix product."""
        return _contracted(self.jacobian, other.dense(), contraction)

    def own_products(self, contraction: Contraction) -> Tensor:
        """Squares, or c x c blocks."""
        j = self.jacobian
        if contraction == "full":
            return j @ j.mT
        squares = j.square().sum(dim=-1)
        return squares.sum(dim=-1) if contraction == "trace" else squares

    def dense(self) -> Tensor:
        """The dense Jacobian, which these factors are already."""
        return self.jacobian

    def tensors(self) -> tuple[Tensor, ...]:
        """The one tensor that is held."""
        return (self.jacobian,)


@dataclass(frozen=True)
class Outer(Factors):
    """J = sum_t b_t a_t^T for each group, never formed. T positions, G groups."""

    a: Tensor
    """(E or 1, n, G, T, p); one for all members if they share it, as they do their inputs."""
    b: Tensor
    """(E, n, c, G, T, q)"""

    def __getitem__(self, samples: slice) -> Outer:
        return Outer(self.a[:, samples], self.b[:, samples])

    def product(self, other: Factors, contraction: Contraction) -> Tensor:
        """Gram matrices over all pairs of positions, multiplied and summed over these."""
        if not isinstance(other, Outer):
            return Dense(self.dense()).product(other, contraction)
        groups, positions = self.a.shape[2:4]
        if groups == positions == 1:
            return self._one_position(other, contraction)
        pairs = len(self.b) * groups * positions * other.a.shape[1] * other.a.shape[3]
        if contraction == "full":
            pairs *= self.b.shape[2] * other.b.shape[2]
        rows = max(1, _SCRATCH_ELEMENTS // max(pairs, 1))
        parts = [self[i : i + rows]._all_positions(other, contraction) for i in range(0, self.a.shape[1], rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _one_position(self, other: Outer, contraction: Contraction) -> Tensor:
        gram = self.a[:, :, 0, 0] @ other.a[:, :, 0, 0].mT
        backward = _contracted(self.b[:, :, :, 0, 0], other.b[:, :, :, 0, 0], contraction)
        return backward.mul_(gram.view(*gram.shape, *(1,) * (backward.ndim - 3)))

    def _all_positions(self, other: Outer, contraction: Contraction) -> Tensor:
        (n, groups, here, _), (m, _, there, _) = self.a.shape[1:], other.a.shape[1:]
        left, right = (f.a.transpose(1, 2).flatten(2, 3) for f in (self, other))  # (E, G, n T, p)
        gram = (left @ right.mT).view(-1, groups, n, here, m, there)
        if contraction == "trace":
            u, v = (f.b.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3) for f in (self, other))  # (E, G, n T, c q)
            return (u @ v.mT).view(-1, groups, n, here, m, there).mul_(gram).sum(dim=(1, 3, 5))
        u, v = (f.b.permute(0, 2, 3, 1, 4, 5).flatten(3, 4) for f in (self, other))  # (E, c, G, n T, q)
        if contraction == "diagonal":
            back = (u @ v.mT).view(*u.shape[:3], n, here, m, there)
            return back.mul_(gram.unsqueeze(1)).sum(dim=(2, 4, 6)).movedim(1, -1)
        back = (u.unsqueeze(2) @ v.unsqueeze(1).mT).view(*u.shape[:2], v.shape[1], groups, n, here, m, there)
        return back.mul_(gram[:, None, None]).sum(dim=(3, 5, 7)).movedim((1, 2), (-2, -1))

    def own_products(self, contraction: Contraction) -> Tensor:
        """Each sample's positions with each other."""
        if self.a.shape[2:4] == (1, 1):
            size = self.a[:, :, 0, 0].square().sum(dim=-1)
            own = Dense(self.b[:, :, :, 0, 0]).own_products(contraction)
            return own * size.view(*size.shape, *(1,) * (own.ndim - 2))
        if contraction == "trace":
            return self._own_gram("trace").sum(dim=(2, 3, 4))
        return self._own_gram(contraction).sum(dim=(-3, -2, -1))

    def _own_gram(self, contraction: Contraction) -> Tensor:
        """(E, n, G, T, T) or (E, n, c, [c,] G, T, T), to be summed over the last three axes."""
        gram = self.a @ self.a.mT
        if contraction == "trace":
            u = self.b.permute(0, 1, 3, 4, 2, 5).flatten(4)
            return (u @ u.mT).mul_(gram)
        if contraction == "diagonal":
            return (self.b @ self.b.mT).mul_(gram.unsqueeze(2))
        return (self.b.unsqueeze(3) @ self.b.unsqueeze(2).mT).mul_(gram[:, :, None, None])

    def dense(self) -> Tensor:
        """sum_t b_t a_t^T, laid out as the weight (q G, p) is, whose bias is the last column if there is one."""
        jacobian = self.b.mT @ self.a.unsqueeze(2)  # (E, n, c, G, q, p)
        return jacobian.flatten(3)

    def cheapest(self, contraction: Contraction) -> Factors:
        """Itself, or its Jacobian if products of that cost less: so it is for convolutions with many positions."""
        groups, positions, p = self.a.shape[2:]
        c, q = self.b.shape[2], self.b.shape[-1]
        outputs = c * c if contraction == "full" else c
        pairs = groups * positions**2
        # A product over q at each pair of positions; forming and summing these numbers costs as much as some more.
        as_outer = pairs * (p + outputs * (q + _PASSES))
        return Dense(self.dense()) if groups * positions > 1 and groups * q * p * outputs < as_outer else self

    def tensors(self) -> tuple[Tensor, ...]:
        """The factors a and b."""
        return self.a, self.b


def _contracted(left: Tensor, right: Tensor, contraction: Contraction) -> Tensor:
    """Products of (E, n, c, P) and (E, m, c, P) over P, and over c if it is the trace."""
    if contraction == "trace":
        return left.flatten(2) @ right.flatten(2).mT
    if contraction == "diagonal":
        return (left.transpose(1, 2) @ right.transpose(1, 2).mT).movedim(1, -1)
    n, c = left.shape[1:3]
    m, d = right.shape[1:3]
    blocks = left.flatten(1, 2) @ right.flatten(1, 2).mT
    return blocks.view(-1, n, c, m, d).transpose(2, 3)
