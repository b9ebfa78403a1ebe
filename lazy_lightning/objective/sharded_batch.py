"""The full-batch objective of a training set that is divided among several processes.

Each process evaluates its own slice. One sum over the processes gives the gradient, and the outputs F on all samples;
the loss, the margins and all else that a flow uses are computed from these, equal on every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.objective.full_batch import Objective, evaluation_of, random_weights, uncancelled_norm
from lazy_lightning.objective.losses import Loss

Sum = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes, in place, with the same result to the bit on each; returns it."""


@dataclass(frozen=True)
class ShardedObjective:
    """The objective of all samples, of which this process evaluates some.

    It equals :class:`~lazy_lightning.objective.full_batch.Objective` of all samples to rounding, and has the same
    values to the bit on all processes. The outputs on other slices are exchanged with the gradient because they are
    few, n c numbers beside N weights, and everything that depends on all samples follows from them: the largest change
    of an output, margins, flat losses, and the training metrics.
    """

    own: Objective
    """Of the samples ``rows``, with the weight 1/(alpha^2 n) of all n."""
    y: Tensor
    """(n, ...) all targets."""
    rows: slice
    """The samples of this process."""
    sum_over_processes: Sum
    reports_margins: bool = True

    @property
    def loss(self) -> Loss:
        """The loss ell of one sample."""
        return self.own.loss

    def select(self, rows: Tensor | None) -> Self:
        """The objective of some members; None for all."""
        return self if rows is None else replace(self, own=self.own.select(rows))

    def backward(self, w: Tensor) -> Evaluation:
        """Evaluates at ``w`` (E, N) and writes grad L to ``w.grad``, by one exchange between the processes."""
        part = self.own.backward(w)
        assert w.grad is not None  # just computed
        assert part.outputs is not None
        w.grad, outputs = self._join(w.grad, part.outputs)
        loss = self.loss
        total = loss.per_sample(outputs, self.y).sum(dim=-1) * self.own.weight
        return evaluation_of(total, outputs, loss, self.y, self.reports_margins)

    def outputs_at(self, w: Tensor) -> Tensor:
        """F at ``w`` (E, N) on all samples, without a graph."""
        return self.sum_over_processes(self._padded(self.own.outputs_at(w)))

    def gradient_scale(self, w: Tensor) -> Tensor:
        """(E,) float64 as of :meth:`Objective.gradient_scale`."""
        own, samples = self.own, len(self.y)
        gradient = self.sum_over_processes(own.random_gradient(w, random_weights(samples)[self.rows]))
        squares = self.sum_over_processes(own.f0.double().flatten(1).square().sum(dim=1))
        return uncancelled_norm(gradient, squares / own.f0[0, 0].numel() / samples, own.centering.alpha)

    def _join(self, gradient: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the gradients (E, N), and the outputs on all samples (E, n, ...) of those on the slices."""
        whole = self._padded(outputs)
        fused = self.sum_over_processes(torch.cat([gradient.flatten(), whole.flatten()]))
        weights = gradient.numel()
        return fused[:weights].view_as(gradient), fused[weights:].view_as(whole)

    def _padded(self, outputs: Tensor) -> Tensor:
        """Outputs (E, n, ...) of all samples, zero outside of this process's slice."""
        whole = outputs.new_zeros(outputs.shape[0], len(self.y), *outputs.shape[2:])
        whole[:, self.rows] = outputs
        return whole
