"""The objective of a model that is linear in given features, with its gradient written out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation, Filter
from lazy_lightning.ntk.sharing import Sharing
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import drop_single_output, evaluation_of, random_weights
from lazy_lightning.objective.losses import Loss


@dataclass(frozen=True)
class KernelObjective:
    """L(v) = 1/(alpha^2 n) sum_i ell(F_i, y_i) with F = F(0) + alpha Phi v, for each member.

    It stands in for :class:`~lazy_lightning.objective.full_batch.Objective`, and needs two matrix-vector products, no
    graph.
    """

    features: Tensor
    """(U, n c, n c), or (U, n, n) where all outputs share one kernel; U = E without ``sharing``."""
    start: Tensor | None
    """(E, n, c) F(0), from :meth:`Centering.offset`; None for zero."""
    centering: Centering
    """Its alpha is that of the members, (E,)."""
    loss: Loss
    y: Tensor
    outputs: int
    """c"""
    reports_margins: bool = True
    sharing: Sharing | None = None

    def select(self, rows: Tensor | None) -> Self:
        """The objective of some members; None for all."""
        if rows is None:
            return self
        part = replace(
            self, start=None if self.start is None else self.start[rows], centering=self.centering.select(rows)
        )
        if self.sharing is None:
            return replace(part, features=self.features[rows])
        sharing, used = self.sharing.select(rows)
        features = self.features if len(used) == len(self.features) else self.features[used]
        return replace(part, features=features, sharing=sharing)

    def backward(self, v: Tensor) -> Evaluation:
        """Evaluates at ``v`` (E, N) and leaves grad L in ``v.grad``."""
        outputs, total, slope = self._slopes(v)
        v.grad = self._gradient(v, slope)
        shown = drop_single_output(outputs)
        loss = total / self.centering.loss_divisor(len(self.y), v.dtype)
        return evaluation_of(loss, shown, self.loss, self.y, self.reports_margins)

    def outputs_at(self, v: Tensor) -> Tensor:
        """F at ``v`` (E, N), (E, n) for one output and (E, n, c) for more."""
        moved = kernel_outputs(self.features, v.detach(), self.centering, self.start, self.outputs, self.sharing)
        return drop_single_output(moved)

    def filtered(self, v: Tensor, cotangent: Filter) -> Evaluation:
        """Evaluates at ``v`` and leaves Phi^T u / (alpha n) in ``v.grad``, u = ``cotangent(F, d ell / dF)``."""
        outputs = self.outputs_at(v)
        u = cotangent(outputs, self.slopes(outputs))
        v.grad = self._gradient(v, u.reshape(len(v), -1, self.outputs))
        return self.report(outputs)

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs F (E, n, ...) belong to."""
        total = self.loss.per_sample(outputs, self.y).sum(dim=-1)
        loss = total / self.centering.loss_divisor(len(self.y), outputs.dtype)
        return evaluation_of(loss, outputs, self.loss, self.y, self.reports_margins)

    def slopes(self, outputs: Tensor) -> Tensor:
        """d ell / dF at F (E, n, ...), of the same shape."""
        return self.loss.slopes(outputs, self.y)

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """The root of d^2 ell / dF^2 at F (R, n, ...), see :meth:`Loss.curvature_root`."""
        return self.loss.curvature_root(outputs, self.y)

    def kernel(self, v: Tensor, rows: Tensor) -> Tensor:
        """(R, n c, n c) Phi Phi^T of the members ``rows``; the same at every ``v``."""
        own = rows if self.sharing is None else self.sharing.own[rows]
        used, which = torch.unique(own, return_inverse=True)
        features = self.features[used]
        kernel = features @ features.mT
        if kernel.shape[-1] != len(self.y) * self.outputs:  # the outputs share a kernel
            identity = torch.eye(self.outputs, dtype=kernel.dtype, device=kernel.device)
            kernel = torch.einsum("uij,kl->uikjl", kernel, identity).flatten(3).flatten(1, 2)
        return kernel[which]

    @torch.enable_grad()
    def gradient_scale(self, v: Tensor) -> Tensor:
        """(E,) float64 as of :meth:`~lazy_lightning.objective.full_batch.Objective.gradient_scale`."""
        slope = self._slopes(v)[2]
        random = random_weights(len(self.y)).to(slope)
        norm: Tensor = torch.linalg.vector_norm(self._gradient(v, slope * random.view(-1, 1)), dim=1)
        return norm.double()

    def _slopes(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs (E, n, c), the sum of the losses (E,), and its slopes with the outputs."""
        outputs = kernel_outputs(
            self.features, v.detach(), self.centering, self.start, self.outputs, self.sharing
        ).requires_grad_()
        total = self.loss.per_sample(drop_single_output(outputs), self.y).sum(dim=-1)
        (slope,) = torch.autograd.grad(total.sum(), outputs)
        return outputs.detach(), total.detach(), slope

    def _gradient(self, v: Tensor, slope: Tensor) -> Tensor:
        columns = _columns(self.features, v, slope)
        weight = self.centering.slope_weight(len(self.y), v.dtype)
        return _product(self.features.mT, columns, self.sharing).flatten(1).mul_(weight.unsqueeze(1))


def kernel_outputs(
    features: Tensor,
    v: Tensor,
    centering: Centering,
    start: Tensor | None,
    outputs: int,
    sharing: Sharing | None = None,
) -> Tensor:
    """F(0) + alpha Phi v, (E, n, c), where F(0) is ``start``, from :meth:`Centering.offset`."""
    moved = _product(features, _columns(features, v, v), sharing)
    centered = moved.reshape(len(v), -1, outputs) * centering.column(v.dtype)
    return centered if start is None else centered + start


def _product(features: Tensor, columns: Tensor, sharing: Sharing | None) -> Tensor:
    return features @ columns if sharing is None else sharing.product(features, columns)


def _columns(features: Tensor, v: Tensor, values: Tensor) -> Tensor:
    """(E, rows of the kernel, 1 or c): the outputs are columns where they share a kernel, rows where they do not."""
    return values.reshape(len(v), -1, v.shape[1] // features.shape[-1])
