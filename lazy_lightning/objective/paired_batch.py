"""The full-batch objective as a function of dw = w - w0, where F is computed without cancellation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from lazy_lightning.nn.members import Weights
from lazy_lightning.nn.paired_network import Kept, PairedNetwork
from lazy_lightning.objective.full_batch import (
    Objective,
    chunks,
    drop_single_output,
    random_weights,
    taken,
    uncancelled_norm,
)


@dataclass(frozen=True)
class PairedObjective(Objective):
    """:class:`Objective` at w0 + dw of a given dw: every ``w`` (E, N) of its methods is dw.

    F = alpha (f(w0 + dw, x) - f(w0, x)) keeps the digits that the subtraction of outputs loses at large alpha, see
    :mod:`lazy_lightning.nn.pairs`. Needs centering.
    """

    w0: Tensor | None = None
    """(E, N)"""
    kept: Kept | None = None
    """What the network computes at w0 on all samples; None to compute it at every evaluation"""

    @classmethod
    def of(cls, objective: Objective, w0: Tensor) -> Self:
        """The same objective in pairs; what is computed at w0 is kept where samples are not taken in chunks."""
        made = cls(**{name: getattr(objective, name) for name in Objective.__dataclass_fields__}, w0=w0)
        if made.chunk_size is not None and made.chunk_size < len(made.x):
            return made
        return replace(made, kept=made.paired.bases(w0, made.x, made.buffers))

    @cached_property
    def paired(self) -> PairedNetwork:
        """The network that passes on pairs."""
        return PairedNetwork(self.network)

    def select(self, rows: Tensor | slice | None) -> Self:
        """The objective of some members, given by indices or as a slice; None for all."""
        if rows is None:
            return self
        assert self.w0 is not None  # see of
        kept = None if self.kept is None else tuple(tensor[rows] for tensor in self.kept)
        return replace(super().select(rows), w0=self.w0[rows], kept=kept)

    def outputs_at(self, w: Tensor) -> Tensor:
        """F at ``w`` (E, N), (E, n) for one output and (E, n, c) for more, without a graph."""
        with torch.no_grad():
            parts = chunks(len(self.x), self.chunk_size)
            return torch.cat([self._outputs_of(w, part) for part in parts], dim=1)

    def hessian_product(self, w: Tensor, v: Tensor) -> Tensor:
        """As of :class:`Objective` at w0 + dw: the differences of nonlinearities have first derivatives alone."""
        plain = Objective(**{name: getattr(self, name) for name in Objective.__dataclass_fields__})
        return plain.hessian_product(self.weights_at(w), v)

    def weights_at(self, w: Tensor) -> Tensor:
        """(E, N) w0 + dw."""
        assert self.w0 is not None  # see of
        return self.w0 + w

    def gradient_scale(self, w: Tensor) -> Tensor:
        """(E,) float64 as of :meth:`Objective.gradient_scale`, without the rounding errors of f - f0."""
        gradient = self.random_gradient(w, random_weights(len(self.x)))
        return uncancelled_norm(gradient, torch.zeros_like(self.centering.alpha), self.centering.alpha)

    def _outputs_of(self, w: Weights, part: slice | None) -> Tensor:
        assert self.w0 is not None  # see of
        change = self.paired(self.w0, w, taken(self.x, part), self.buffers, self.kept)
        f0 = self.f0 if part is None else self.f0[:, part]
        return drop_single_output(self.centering.from_change(change, f0))


@torch.inference_mode(False)  # a trainer's evaluation, as of raw_outputs
@torch.no_grad()
def changes(
    paired: PairedNetwork, w0: Tensor, dw: Tensor, x: Tensor, buffers: dict[str, Tensor], chunk_size: int | None
) -> Tensor:
    """f(w0 + dw, x) - f(w0, x), (E, n, c), without a graph."""
    return torch.cat([paired(w0, dw, x[part], buffers) for part in chunks(len(x), chunk_size)], dim=1)
