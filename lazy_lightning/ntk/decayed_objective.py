"""DecayedObjective: a full-batch objective with weight decay, as a flow descends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.ntk.objective_closure import FullBatchObjective
from lazy_lightning.objective.losses import Loss
from lazy_lightning.objective.weight_decay import WeightDecay


@dataclass(frozen=True)
class DecayedObjective:
    """L(w) + (rate/2) norm(w - c)^2; the evaluation reports L, its gradient is that of the sum.

    It has no tangent kernel form, so ``explicit`` and ``euler`` follow it, and ``auto`` falls back to ``explicit``.
    """

    objective: FullBatchObjective
    decay: WeightDecay
    w0: Tensor
    """(E, N)"""

    @property
    def loss(self) -> Loss:
        """The loss ell of one sample."""
        return self.objective.loss

    def select(self, rows: Tensor | None) -> Self:
        """The objective of some members; None for all."""
        if rows is None:
            return self
        return replace(self, objective=self.objective.select(rows), w0=self.w0[rows])

    def backward(self, w: Tensor) -> Evaluation:
        """Evaluates, and leaves the gradient with that of the decay in ``w.grad``."""
        evaluation = self.objective.backward(w)
        assert w.grad is not None  # just computed
        w.grad.add_(self._pull(w))
        return evaluation._replace(flat=None)  # where the loss is flat the decay still moves the weights

    def gradient_scale(self, w: Tensor) -> Tensor:
        """(E,) float64 the norm without cancellation among samples, and with the decay's."""
        pull = torch.linalg.vector_norm(self._pull(w), dim=1).double()
        return torch.hypot(self.objective.gradient_scale(w), pull)

    def outputs_at(self, w: Tensor) -> Tensor:
        """F, by a forward pass alone."""
        return self.objective.outputs_at(w)

    @torch.no_grad()
    def _pull(self, w: Tensor) -> Tensor:
        """(E, N) rate (w - c), the gradient of the decay."""
        return self.decay.rate * (w if self.decay.to == "zero" else w - self.w0)
