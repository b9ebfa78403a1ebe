"""The full-batch objective of E centred members, and its gradient: what a flow follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self, cast

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.evaluation import Evaluation, Filter
from lazy_lightning.nn.directional_derivative import directional_derivative, pullback
from lazy_lightning.nn.member_samples import Samples, select_members
from lazy_lightning.nn.members import MemberNetwork, Weights
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.losses import Loss
from lazy_lightning.objective.member_blocks import blocks, outputs_in_blocks
from lazy_lightning.seeding import generator


@dataclass(frozen=True)
class Objective:
    """L(w) = 1/(alpha^2 n) sum_i ell(alpha (f(w, x_i) - f(w0, x_i)), y_i) for each member (arXiv:1906.08034).

    All tensors lie on one device; ``f0`` comes from :meth:`Centering.base`. With ``chunk_size`` the
    samples go through in chunks: the same gradient to rounding, in memory bounded by the chunk.
    """

    network: MemberNetwork
    loss: Loss
    centering: Centering
    x: Tensor
    """(n, *input_shape); ``MemberSamples`` stand for it where members have samples of their own"""
    y: Tensor
    """(n, ...) as the loss wants them; likewise, with a ``LossOverSets``"""
    f0: Tensor
    """(E, n, c)"""
    buffers: dict[str, Tensor]
    """(E, *shape) each"""
    chunk_size: int | None = None
    reports_margins: bool = True
    samples: int | None = None
    """The n of the loss, where ``x`` is a slice of the training set; None for len(x)"""
    block_size: int | None = None
    """The members that :meth:`backward` and :meth:`outputs_at` evaluate at once, see
    :func:`~lazy_lightning.objective.member_blocks.block_size`; None for all"""

    def select(self, rows: Tensor | slice | None) -> Self:
        """The objective of some members, given by indices or as a slice; None for all."""
        if rows is None:
            return self
        return replace(
            self,
            centering=self.centering.select(rows),
            x=select_members(self.x, rows),
            y=select_members(self.y, rows),
            f0=self.f0[rows],
            buffers={name: b[rows] for name, b in self.buffers.items()},
        )

    def backward(self, w: Tensor) -> Evaluation:
        """Evaluates at ``w`` (E, N) and adds grad L to ``w.grad``, the graph of one block and chunk at a time."""
        weights, gradient = w.detach(), torch.empty_like(w)
        if self._blocks:
            parts = [block._descend(weights[rows], gradient[rows]) for rows, block in self._blocks]
            total, outputs = (torch.cat(part) for part in zip(*parts, strict=True))
        else:
            total, outputs = self._descend(weights, gradient)
        w.grad = gradient if w.grad is None else w.grad.add_(gradient)
        return evaluation_of(total * self.weight, outputs, self.loss, self.y, self.reports_margins)

    def _descend(self, w: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Writes grad L to ``gradient`` (E, N); returns the sum of ell over the samples, (E,), and F (E, n, ...).

        The tensors of the network are the leaves, which takes fewer operations than one leaf that is split.
        """
        leaves = {name: part.requires_grad_() for name, part in self.network.unpack(w).items()}
        sums, outputs = [], []
        for part in self._parts:
            centered = self._outputs_of(leaves, part)
            total = self.loss.per_sample(centered, taken(self.y, part)).sum(dim=-1)
            total.backward(self.weight)  # type: ignore[no-untyped-call]  # of sum_E weight total, without forming it
            sums.append(total.detach())
            outputs.append(centered.detach())
        rows = len(gradient)
        torch.cat([gradient_of(leaf).reshape(rows, -1) for leaf in leaves.values()], dim=1, out=gradient)
        whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum(dim=0), whole

    @cached_property
    def _parts(self) -> list[slice | None]:
        """The samples of each chunk; None for all, where they are one."""
        parts: list[slice | None] = list(chunks(len(self.x), self.chunk_size))
        return parts if len(parts) > 1 else [None]

    @cached_property
    def _blocks(self) -> list[tuple[slice, Self]]:
        """The members of each block, and their objective; none where all members are one block."""
        rows = blocks(len(self.f0), self.block_size)
        return [(part, self.select(part)) for part in rows] if len(rows) > 1 else []

    def outputs_at(self, w: Tensor) -> Tensor:
        """F at ``w`` (E, N), (E, n) for one output and (E, n, c) for more, without a graph."""
        with torch.no_grad():
            f = raw_outputs(self.network, w, self.x, self.buffers, self.chunk_size, self.block_size)
            return drop_single_output(self.centering(f, self.f0))

    def filtered(self, w: Tensor, cotangent: Filter) -> Evaluation:
        """Evaluates at ``w`` (E, N) and adds J^T u / (alpha n) to ``w.grad``, u = ``cotangent(F, d ell / dF)``.

        u = d ell / dF gives grad L. In chunks each takes a second forward pass, since u depends on all samples.
        """
        weight = self.weight
        if self.chunk_size is None or self.chunk_size >= len(self.x):
            centered = self._outputs_of(w, slice(None))
            whole = centered.detach()
            u = cotangent(whole, self.slopes(whole))
            centered.backward(u * weight.view(-1, *(1,) * (u.ndim - 1)))  # type: ignore[no-untyped-call]
            return self.report(whole)
        whole = self.outputs_at(w)
        u = cotangent(whole, self.slopes(whole))
        u = u * weight.view(-1, *(1,) * (u.ndim - 1))
        for part in chunks(len(self.x), self.chunk_size):
            centered = self._outputs_of(w, part)
            centered.backward(u[:, part])  # type: ignore[no-untyped-call]
        return self.report(whole)

    def weights_at(self, w: Tensor) -> Tensor:
        """(E, N) the networks' weights at ``w``: here ``w`` itself."""
        return w

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs F (E, n, ...) belong to, without the network."""
        total = self.loss.per_sample(outputs, self.y).sum(dim=-1)
        return evaluation_of(total * self.weight, outputs, self.loss, self.y, self.reports_margins)

    def slopes(self, outputs: Tensor) -> Tensor:
        """d ell / dF at F (E, n, ...), of the same shape."""
        return self.loss.slopes(outputs, self.y)

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """The root of d^2 ell / dF^2 at F (R, n, ...), see :meth:`Loss.curvature_root`."""
        return self.loss.curvature_root(outputs, self.y)

    def gradient_scale(self, w: Tensor) -> Tensor:
        """(E,) float64 the norm of grad L at ``w`` if the samples' contributions did not cancel.

        The root of the sum of their squared norms, estimated by one gradient with a random weight for each sample.
        Times alpha rms(f0) if that exceeds 1: so much larger than those of F of order one are the rounding errors of
        alpha (f - f0).
        """
        gradient = self.random_gradient(w, random_weights(len(self.x)))
        return uncancelled_norm(gradient, self.f0.double().flatten(1).square().mean(dim=1), self.centering.alpha)

    @torch.no_grad()
    def hessian_product(self, w: Tensor, v: Tensor) -> Tensor:
        """(E, N) the product of the Hessian of L at ``w`` (E, N) with ``v`` (E, N), one chunk's graph at a time.

        The derivative of grad L along v, in the time of some four gradients, without the Hessian (Pearlmutter, 1994).
        Where relu has its kinks, the second derivative counts as zero.
        """
        product = torch.zeros_like(w)
        for part in chunks(len(self.x), self.chunk_size):
            product += cast(Tensor, directional_derivative(partial(self._gradient_of, part), w, v)[1])
        return product

    def _gradient_of(self, part: slice, w: Tensor) -> Tensor:
        """(E, N) the part of some samples in grad L, differentiable in ``w``."""

        def losses(weights: Tensor) -> Tensor:
            return self.loss.per_sample(self._outputs_of(weights, part), self.y[part]).sum(dim=-1)

        return pullback(losses, w, self.weight)

    @torch.enable_grad()
    def random_gradient(self, w: Tensor, weights: Tensor) -> Tensor:
        """(E, N) grad L at ``w`` with one more weight for each sample, ``weights`` (n,)."""
        leaf = w.detach().clone().requires_grad_(True)
        random = weights.to(self.f0)
        for part in chunks(len(self.x), self.chunk_size):
            centered = self._outputs_of(leaf, part)
            total = (self.loss.per_sample(centered, self.y[part]) * random[part]).sum(dim=-1)
            total.backward(self.weight)  # type: ignore[no-untyped-call]
        assert leaf.grad is not None  # just computed
        return leaf.grad

    def _outputs_of(self, w: Weights, part: slice | None) -> Tensor:
        """F on some of the samples (None for all), (E, k) for one output and (E, k, c) for more, with a graph."""
        f0 = self.f0 if part is None else self.f0[:, part]
        return drop_single_output(self.centering(self.network(w, taken(self.x, part), self.buffers), f0))

    @cached_property
    def weight(self) -> Tensor:
        """(E,) 1/(alpha^2 n), see :meth:`Centering.loss_weight`."""
        samples = len(self.x) if self.samples is None else self.samples
        return self.centering.loss_weight(samples).to(self.x.dtype)


def evaluation_of(total: Tensor, outputs: Tensor, loss: Loss, y: Tensor, reports_margins: bool) -> Evaluation:
    """The evaluation with the losses L ``total`` (E,) and the outputs F (E, n, ...) on targets y (n, ...)."""
    margins = loss.margins(outputs, y) if reports_margins else None
    return Evaluation(total, outputs, margins, loss.flat(outputs, y))


def gradient_of(leaf: Tensor) -> Tensor:
    """The gradient that backward passes have left in a tensor, zeros where it was not used."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def uncancelled_norm(gradient: Tensor, start: Tensor, alpha: Tensor) -> Tensor:
    """(E,) float64 the norm of a gradient whose samples do not cancel, times alpha rms(f0) where that exceeds 1.

    Args:
        gradient: (E, N), see :meth:`Objective.random_gradient`.
        start: (E,) float64 mean square of f0.
        alpha: (E,)
    """
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=1)
    return norm.double() * (start.sqrt() * alpha).clamp_min(1.0)


def random_weights(samples: int) -> Tensor:
    """(n,) float64 of mean 0 and variance 1, the same at every call."""
    return torch.randn(samples, dtype=torch.float64, generator=generator("gradient scale", 0))


@torch.inference_mode(False)  # a trainer's evaluation; older torch has no forward mode under vmap there
@torch.no_grad()
def raw_outputs(
    network: MemberNetwork,
    w: Tensor,
    x: Samples,
    buffers: dict[str, Tensor],
    chunk_size: int | None = None,
    members_at_once: int | None = None,
) -> Tensor:
    """f(w, x), (E, n, c), without a graph, of a chunk of samples and a block of members at a time; None is all."""
    parts = chunks(len(x), chunk_size)
    return torch.cat([outputs_in_blocks(network, w, x[part], buffers, members_at_once) for part in parts], dim=1)


def drop_single_output(outputs: Tensor) -> Tensor:
    """(E, n, 1) as (E, n), which is what the losses take for one output; others unchanged."""
    return outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs


def taken(samples: Tensor, part: slice | None) -> Tensor:
    """The samples of a slice; None for all."""
    return samples if part is None else samples[part]


def chunks(samples: int, chunk_size: int | None) -> Iterator[slice]:
    """Slices that cover the samples.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]

    Raises:
        ConfigError: if ``chunk_size`` is not positive.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"chunk_size must be >= 1, or null for the whole batch at once, got {chunk_size}")
    step = chunk_size or max(samples, 1)
    return (slice(start, start + step) for start in range(0, max(samples, 1), step))
