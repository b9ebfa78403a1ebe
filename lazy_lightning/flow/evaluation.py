"""What a closure reports about the weights it was called at."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Filter = Callable[[Tensor, Tensor], Tensor]
"""Maps F (E, n, ...) and its slopes d ell / dF to the cotangent, of the same shape, that is pulled back instead."""


class Evaluation(NamedTuple):
    """One evaluation of E members at their trial weights; the gradient itself is left in ``param.grad``.

    A closure may return the loss alone; then neither the output change nor the margins can be watched.
    """

    loss: Tensor
    """(E,) the loss of each member, L = 1/(alpha^2 n) sum ell(F, y)."""
    outputs: Tensor | None = None
    """(E, n, ...) the centered outputs F on the training set."""
    margins: Tensor | None = None
    """(E, n) margins, F y for binary labels."""
    flat: Tensor | None = None
    """(E,) bool: every sample lies where a piecewise linear loss is constant, so that a gradient of exactly zero is an
    end; None for a smooth loss, whose gradient vanishes gradually."""
    gradient_scale: Tensor | None = None
    """(E,) float64 the norm that the gradient would have if the samples' contributions did not cancel; at w0 only."""

    def detached(self) -> Evaluation:
        """The same numbers, free of the autograd graph."""
        if not any(x is not None and x.requires_grad for x in self):
            return self
        others = (None if x is None else x.detach() for x in self[1:])
        return Evaluation(self.loss.detach(), *others)


def as_evaluation(returned: object, members: int) -> Evaluation:
    """Reads what a closure returned: an :class:`Evaluation`, or a loss of shape ``()`` or ``(E,)``.

    Raises:
        TypeError: if it is neither, or the loss has another shape.
    """
    evaluation = Evaluation(returned) if isinstance(returned, Tensor) else returned
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            "the closure of MomentumFlow must return the loss or an Evaluation, "
            f"but it returned {type(returned).__name__}"
        )
    evaluation = evaluation.detached()
    loss = evaluation.loss
    if loss.ndim == 0 and members == 1:
        loss = loss.reshape(1)
    if loss.shape != (members,):
        raise TypeError(
            f"the closure must return one loss for each of the {members} members, shape ({members},), "
            f"but its loss has shape {tuple(loss.shape)}"
        )
    return evaluation if loss is evaluation.loss else evaluation._replace(loss=loss)
