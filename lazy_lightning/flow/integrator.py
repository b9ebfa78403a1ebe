"""The contract between the flow and an integrator: what it gets for an attempt at a step, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.events import Event
from lazy_lightning.flow.interpolant import Interpolant
from lazy_lightning.flow.known_masks import holds_for_all
from lazy_lightning.flow.part import FlowPart
from lazy_lightning.flow.positive_number import positive_number
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState

MARGINS = "margins"
"""In the memory: (E, n) the margins at the last accepted step."""
Decide = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps a decision about steps, (E,) bool accept and (E,) float64 the next dt, to the one that holds."""


def own_decision(accept: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the decision as it is: no other process follows these members."""
    return accept, dt


class Attempt(NamedTuple):
    """One attempt at a step of all members."""

    state: FlowState
    """The members at their last accepted step; the integrator updates it in place where a step is accepted, all but
    its clocks."""
    rule: StepRule
    """The dynamics that are followed."""
    dt: Tensor
    """(E,) float64 the step size, already shortened where the step would pass a time to land on."""
    running: Tensor
    """(E,) bool the members that take part; the others must stay as they are."""
    weights: Tensor
    """(E, N) a buffer for trial weights w0 + dw."""
    evaluate: Evaluator
    """Evaluates the closure at given weights; all that a :class:`~lazy_lightning.flow.TangentClosure` gives if the
    integrator needs one."""
    events: tuple[Event, ...]
    """The conditions that end members, for an integrator that locates them within a step."""
    decide: Decide = own_decision
    """Called with the decision about the step before it is kept: where several processes follow the same members, that
    of the first holds for all."""


class Outcome(NamedTuple):
    """What came of an attempt."""

    accept: Tensor
    """(E,) bool: a step from t to t + dt has been completed and kept. False for a rejected or an unfinished step."""
    dt: Tensor
    """(E,) float64 the next step size to try."""
    change: Tensor
    """(E,) float64 r, the relative change of the gradient, or what the integrator puts in its place; not finite where
    the trial was not."""
    evaluation: Evaluation
    """The evaluation at the weights that were accepted."""
    real: Tensor
    """(E,) bool: the gradient before the step exceeded rounding errors."""
    noise: Tensor
    """(E,) bool: the step has shown that the gradient is rounding error alone."""
    interpolant: Interpolant | None = None
    """Where members were within the step; None for an integrator whose members are observed at the ends of steps."""


class Integrator(FlowPart, ABC):
    """Follows the flow from one time to the next; derive from it to write one of your own.

    An integrator is stateless, see :class:`~lazy_lightning.flow.part.FlowPart`. What it carries from one attempt to the
    next is kept in ``state.memory``, tensors with the member axis first, which follow members that leave, devices and
    checkpoints.
    """

    name: ClassVar[str]
    """How a configuration names it."""
    evaluations: ClassVar[int] = 1
    """Evaluations that one attempt costs, by which the count of tried steps grows; with several parts, the most."""
    growth: float
    """The largest factor by which dt grows in one attempt: bounds how far t can move in a burst."""
    needs_tangent: ClassVar[bool] = False
    """Whether the closure must be a :class:`~lazy_lightning.flow.TangentClosure`."""
    reads_the_host: ClassVar[bool] = False
    """Whether an attempt reads numbers from the device, so that it cannot be recorded as a CUDA graph."""
    interpolates: ClassVar[bool] = False
    """Whether outcomes have an interpolant, by which members are observed within long steps too."""
    approximate: ClassVar[bool] = False
    """Whether ``state.outputs`` and ``state.loss`` are those of the accepted weights to the integrator's tolerance
    alone; the flow then evaluates members anew at their end."""

    @property
    def parts(self) -> tuple[Integrator, ...]:
        """The integrators that follow some members each, chosen by ``state.memory["mode"]``; by default itself."""
        return (self,)

    @property
    def fallback(self) -> Integrator | None:
        """What is used instead where ``needs_tangent`` cannot be met; None to refuse."""
        return None

    def switch(self, state: FlowState) -> None:
        """Chooses, after a burst, which part follows each member from now on, in place."""

    def memory(self, state: FlowState, evaluation: Evaluation) -> dict[str, Tensor]:
        """The tensors to be kept in ``state.memory``, from state and evaluation at t = 0; by default none."""
        return {}

    def first_dt(self, state: FlowState, rule: StepRule) -> Tensor:
        """(E,) float64 the first step size to try, from the state at t = 0, which has that of the configuration."""
        return state.dt

    @abstractmethod
    def attempt(self, attempt: Attempt) -> Outcome:
        """Evaluates, and moves the members whose step is accepted."""


def finite(norm: Tensor, loss: Tensor) -> Tensor:
    """(E,) bool: both are finite; a third of the operations of two ``isfinite``."""
    total = norm + loss
    return (total - total).logical_not()  # else the difference is NaN


def keep(old: Tensor, new: Tensor, accept: Tensor) -> None:
    """Writes the rows of ``new`` to ``old`` where ``accept`` (E,), in place."""
    if holds_for_all(accept):
        old.copy_(new)
        return
    torch.where(accept.view(-1, *(1,) * (old.ndim - 1)), new, old, out=old)


def keep_evaluation(state: FlowState, evaluation: Evaluation, gradient: Tensor, norm: Tensor, accept: Tensor) -> None:
    """Writes gradient (E, N), its norm (E,) and the evaluation to the state where ``accept`` (E,), in place."""
    keep(state.gradient, gradient, accept)
    keep(state.gradient_norm, norm, accept)
    torch.maximum(state.gradient_scale, state.gradient_norm, out=state.gradient_scale)
    keep_report(state, evaluation, accept)


def keep_report(state: FlowState, evaluation: Evaluation, accept: Tensor) -> None:
    """Writes loss, outputs and remembered margins to the state where ``accept`` (E,), in place."""
    keep(state.loss, evaluation.loss, accept)
    if state.outputs is not None and evaluation.outputs is not None:
        keep(state.outputs, evaluation.outputs, accept)
    if MARGINS in state.memory and evaluation.margins is not None:
        keep(state.memory[MARGINS], evaluation.margins, accept)


def margin_memory(evaluation: Evaluation) -> dict[str, Tensor]:
    """The part of an integrator's memory by which events are located: a copy of the margins, if there are any."""
    return {} if evaluation.margins is None else {MARGINS: evaluation.margins.clone()}


def rms(outputs: Tensor) -> Tensor:
    """(E,) float64 the root of the mean square over samples and outputs."""
    return outputs.double().flatten(1).square().mean(dim=1).sqrt()


def relative_norm(part: Tensor, whole: Tensor) -> Tensor:
    """(E,) float64 the norm of ``part`` over that of ``whole``, both (E, N); NaN where both are zero."""
    ratio: Tensor = torch.linalg.vector_norm(part, dim=1) / torch.linalg.vector_norm(whole, dim=1)
    return ratio.double()


def check_tolerance(tol: object) -> float:
    """Returns a tolerance that is > 0 and finite.

    Raises:
        ConfigError: it is not.
    """
    return positive_number("tol", tol, "the error of F that a step may make, a finite number > 0 (1e-3)")
