"""Evaluates a closure at given weights: publishes them to the parameters, and reads the gradient back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation, Filter, as_evaluation
from lazy_lightning.flow.parameters import ParameterRows

Closure = Callable[[], Tensor | Evaluation]


@runtime_checkable
class TangentClosure(Protocol):
    """A closure that also gives what an implicit integrator needs, all at the parameters' present values.

    :class:`~lazy_lightning.ntk.ObjectiveClosure` is one. For n samples of c outputs, m = n c. A closure may also have
    ``outputs_of(rows, weights)``: F (R, n, ...) of the members ``rows`` (R,) alone, at weights (R, N), which else comes
    from ``outputs``.
    """

    def __call__(self) -> Evaluation:
        """Evaluates, and leaves the gradient in the parameters."""
        ...

    def outputs(self) -> Tensor:
        """F (E, n, ...), by a forward pass alone."""
        ...

    def filtered(self, cotangent: Filter) -> Evaluation:
        """Evaluates, and leaves J^T u / (alpha n) in the parameters' gradient, u = ``cotangent(F, slopes)``."""
        ...

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs F (E, n, ...) belong to."""
        ...

    def kernel(self, rows: Tensor) -> Tensor:
        """(R, m, m) J J^T of some of the members, R indices among those that are evaluated."""
        ...

    def slopes(self, outputs: Tensor) -> Tensor:
        """d ell / dF at F (E, n, ...), of the same shape."""
        ...

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """S with S S^T = d^2 ell / dF^2 at F (R, n, ...): (R, m), or (R, n, c, c) where outputs are coupled."""
        ...

    def check(self) -> None:
        """Raises ConfigError if loss or size do not fit an implicit integrator."""
        ...


class Evaluator:
    """The closure as a function of the weights (E, N) of the running members.

    :meth:`filtered` and what follows it need a :class:`TangentClosure`.
    """

    def __init__(self, rows: ParameterRows, closure: Closure) -> None:
        self._rows = rows
        self._closure: Any = closure

    def __call__(self, weights: Tensor) -> tuple[Evaluation, Tensor]:
        """The evaluation at the weights and the gradient (E, N)."""
        return self._evaluate(weights, self._closure)

    def initial(self, weights: Tensor) -> tuple[Evaluation, Tensor]:
        """As a call, at w0: by the closure's ``initial`` if it has one."""
        return self._evaluate(weights, getattr(self._closure, "initial", self._closure))

    def outputs(self, weights: Tensor) -> Tensor | None:
        """F (E, n, ...), by a forward pass if the closure has ``outputs``, else by an evaluation; None if unknown."""
        if not hasattr(self._closure, "outputs"):
            return self(weights)[0].outputs
        self._rows.publish(weights)
        with torch.no_grad():
            outputs: Tensor = self._closure.outputs()
        return outputs.detach()

    def outputs_of(self, weights: Tensor, rows: Tensor, moved: Tensor) -> Tensor:
        """F (R, n, ...) of the members ``rows`` (R,) at ``moved`` (R, N), the others at ``weights`` (E, N).

        The rows are in ascending order, each once.
        """
        # Of all members without: nothing that belongs to them needs a copy then.
        if len(rows) < len(weights) and hasattr(self._closure, "outputs_of"):
            with torch.no_grad():
                own: Tensor = self._closure.outputs_of(rows, moved)
            return own.detach()
        outputs = self.outputs(weights.index_copy(0, rows, moved))
        assert outputs is not None  # a tangent closure gives outputs
        return outputs[rows]

    def filtered(self, weights: Tensor, cotangent: Filter) -> tuple[Evaluation, Tensor]:
        """As a call, with another cotangent pulled back."""
        return self._evaluate(weights, lambda: self._closure.filtered(cotangent))

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs belong to."""
        evaluation: Evaluation = self._closure.report(outputs)
        return evaluation

    def kernel(self, weights: Tensor, rows: Tensor) -> Tensor:
        """(R, m, m) the tangent kernel of some members at the weights (E, N)."""
        self._rows.publish(weights)
        kernel: Tensor = self._closure.kernel(rows)
        return kernel

    def slopes(self, outputs: Tensor) -> Tensor:
        """The slopes of the loss with the outputs."""
        slopes: Tensor = self._closure.slopes(outputs)
        return slopes

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """The root of the loss's curvature at outputs F (R, n, ...)."""
        root: Tensor = self._closure.curvature_root(outputs)
        return root

    def _evaluate(self, weights: Tensor, closure: Closure) -> tuple[Evaluation, Tensor]:
        self._rows.publish(weights)
        self._rows.clear_gradients()
        with torch.enable_grad():
            returned = closure()
        return as_evaluation(returned, len(weights)), self._rows.gradient()
