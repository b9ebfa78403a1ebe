"""Euler's method with a step-size controller: one evaluation a step, the papers' rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazy_lightning.flow.controllers import Change, Controller
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.gradient_change import exceeds_rounding, is_noise, relative_gradient_change
from lazy_lightning.flow.integrator import Attempt, Integrator, Outcome, finite, keep, keep_evaluation
from lazy_lightning.flow.known_masks import holds_for_all
from lazy_lightning.flow.part import on_device, select_rows
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState

_UNBOUNDED = 1 / torch.finfo(torch.float64).eps
"""r where the new gradient is exactly zero: finite, so that a controller which accepts any step accepts that."""


@dataclass(frozen=True)
class Euler(Integrator):
    """w <- w + dt v with the new v; a :class:`~lazy_lightning.flow.Controller` accepts the step and chooses dt.

    Of first order. For gradient flow an attempt takes 17 passes over (E, N) beside its evaluation: dw + dt v (3), + w0
    (3), g_new - g (3) and its norm (1), the norm of g_new (1), dw (3), g (3).
    """

    controller: Controller
    name: ClassVar[str] = "euler"

    @property
    def growth(self) -> float:  # type: ignore[override]
        """That of the controller."""
        return self.controller.growth

    def select(self, rows: Tensor) -> Euler:
        """The same for some of the members."""
        chosen = select_rows(self.controller, rows)
        return self if chosen is self.controller else Euler(chosen)

    def to(self, device: torch.device) -> Euler:
        """The same on a device."""
        return Euler(on_device(self.controller, device))

    def attempt(self, attempt: Attempt) -> Outcome:
        """Moves, evaluates once, compares the gradients, and keeps the step or goes back."""
        state, dt = attempt.state, attempt.dt
        velocity, rate = propose(state, dt, attempt.rule)
        torch.addcmul(state.displacement, velocity, rate, out=attempt.weights).add_(state.origin)

        evaluation, gradient = attempt.evaluate(attempt.weights)

        norm = torch.linalg.vector_norm(gradient, dim=1).double()
        real = exceeds_rounding(state)
        near = real if evaluation.flat is None else real & ~evaluation.flat
        r = relative_gradient_change(
            state.gradient, gradient, state.gradient_norm, norm, near, _UNBOUNDED, scratch=attempt.weights
        )
        noise = is_noise(state, r, real)
        output = _output_change(state, evaluation) if self.controller.watches_outputs else None
        decision = self.controller(dt, Change(r, output))
        accept = decision.accept & finite(norm, evaluation.loss) & attempt.running
        accept, following = attempt.decide(accept, decision.dt)

        # The same addcmul as in the trial, so w is the w that was evaluated.
        kept = rate if holds_for_all(accept) else rate * accept.unsqueeze(1)
        state.displacement.addcmul_(velocity, kept)
        if state.velocity is not None:
            keep(state.velocity, velocity, accept)
        keep_evaluation(state, evaluation, gradient, norm, accept)
        return Outcome(accept, following, r, evaluation, real, noise)


def propose(state: FlowState, dt: Tensor, rule: StepRule) -> tuple[Tensor, Tensor]:
    """The trial velocity (E, N) and the factor (E, 1) with which it is added to dw."""
    dtype = state.gradient.dtype
    if state.velocity is None:
        return state.gradient, (-dt).to(dtype).unsqueeze(1)  # v = -g: the sign is in dt, no pass over memory
    gain = rule.gain(state.t, dt).to(dtype).unsqueeze(1)
    return torch.lerp(state.velocity, -state.gradient, gain), dt.to(dtype).unsqueeze(1)


def _output_change(state: FlowState, evaluation: Evaluation) -> Tensor:
    if state.outputs is None or evaluation.outputs is None:
        raise TypeError(
            "this controller bounds the change of the outputs, so the closure must return an Evaluation with outputs"
        )
    return (evaluation.outputs - state.outputs).abs().flatten(1).amax(dim=1)
