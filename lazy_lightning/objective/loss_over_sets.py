"""LossOverSets: a loss whose members may have targets of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.objective.losses import Loss, Task


@dataclass(frozen=True)
class LossOverSets(Loss):
    """Another loss, of outputs F (E, n, ...) with targets of each member's data set, one set after the other.

    Targets are :class:`~lazy_lightning.nn.member_samples.MemberSamples`, or a tensor that all members share.
    """

    loss: Loss

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the loss."""
        return self.loss.name

    @property
    def supports(self) -> frozenset[Task]:  # type: ignore[override]
        """The tasks that the loss fits."""
        return self.loss.supports

    @property
    def has_margin_stop(self) -> bool:  # type: ignore[override]
        """Whether the loss has margins to meet."""
        return self.loss.has_margin_stop

    @property
    def has_curvature(self) -> bool:
        """As of the loss."""
        return self.loss.has_curvature

    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample, (E, n)."""
        return _over_sets(self.loss.per_sample, F, y)

    def margins(self, F: Tensor, y: Tensor) -> Tensor:
        """The margin of each sample, (E, n)."""
        return _over_sets(self.loss.margins, F, y)

    def slopes(self, F: Tensor, y: Tensor) -> Tensor:
        """d ell / dF, of the shape of F."""
        return _over_sets(self.loss.slopes, F, y)

    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """As of the loss, for each member."""
        return _over_sets(self.loss.curvature_root, F, y)

    def errors(self, F: Tensor, y: Tensor) -> Tensor:
        """Whether each sample is misclassified, (E, n) bool."""
        return _over_sets(self.loss.errors, F, y)

    def flat(self, F: Tensor, y: Tensor) -> Tensor | None:
        """As of the loss, (E,)."""
        if not isinstance(y, MemberSamples):
            return self.loss.flat(F, y)
        return None if self.loss.flat(F[:1], y.sets[0]) is None else _over_sets(self._flat, F, y)

    def _flat(self, F: Tensor, y: Tensor) -> Tensor:
        flat = self.loss.flat(F, y)
        assert flat is not None  # asked before
        return flat


def own_sample_losses(loss: Loss, F: Tensor, y: Tensor | MemberSamples) -> Tensor:
    """(E, n) the loss of each sample, all members in one call, where targets may be each member's own.

    Args:
        loss: of samples, which it treats one by one.
        F: (E, n) or (E, n, c).
        y: (n, ...) targets that all members share, or each member's own.
    """
    if not isinstance(y, MemberSamples):
        return loss.per_sample(F, y)
    return loss.per_sample(F.flatten(0, 1).unsqueeze(0), y.by_member.flatten(0, 1)).view(F.shape[:2])


def _over_sets(function: Callable[[Tensor, Tensor], Tensor], F: Tensor, y: Tensor | MemberSamples) -> Tensor:
    """The results of a function of (F, y) for the members of each set, in the order of the members."""
    if not isinstance(y, MemberSamples):
        return function(F, y)
    return y.joined([function(F[rows], targets) for rows, targets in y.rows_by_set()])
