"""One tried step of the flow: move, evaluate once, judge, keep or go back. No host synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lazy_lightning.flow.controllers import Change, Controller
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.events import Event, Moment, first_reason
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.stop_reason import StopReason

Evaluate = Callable[[Tensor], tuple[Evaluation, Tensor]]
"""From weights (E, N) to the evaluation there and the gradient (E, N)."""


@dataclass(frozen=True)
class Dynamics:
    """How to step: the rule, who judges the step, and what ends a member."""

    rule: StepRule
    controller: Controller
    events: tuple[Event, ...]
    t_max: float = float("inf")

    def select(self, rows: Tensor) -> Dynamics:
        """The same for some of the members."""
        return replace(self, rule=self.rule.select(rows))


def initial_state(origin: Tensor, weights_at: Tensor, evaluate: Evaluate, dynamics: Dynamics, dt: float) -> FlowState:
    """The state at t = 0, after the one evaluation at w0. ``weights_at`` (E, N) is the buffer of trial weights."""
    members, device = len(origin), origin.device
    evaluation, gradient = evaluate(weights_at.copy_(origin))
    loss = evaluation.loss.clone()
    norm = torch.linalg.vector_norm(gradient, dim=1)
    finite = norm.isfinite() & loss.isfinite()
    clock = torch.zeros(members, dtype=torch.float64, device=device)
    count = torch.zeros(members, dtype=torch.int64, device=device)
    return FlowState(
        origin=origin,
        displacement=torch.zeros_like(origin),
        gradient=gradient.clone(),
        velocity=torch.zeros_like(origin) if dynamics.rule.has_velocity else None,
        outputs=None if evaluation.outputs is None else evaluation.outputs.clone(),
        margins=None if evaluation.margins is None else evaluation.margins.clone(),
        loss=loss,
        loss_start=loss.clone(),
        gradient_norm=norm,
        gradient_change=torch.zeros_like(norm),
        t=clock,
        dt=torch.full_like(clock, dt),
        tried=count,
        accepted=count.clone(),
        reason=torch.where(finite, int(StopReason.RUNNING), int(StopReason.NON_FINITE)).to(torch.int8),
    )


def try_step(state: FlowState, weights_at: Tensor, evaluate: Evaluate, dynamics: Dynamics) -> None:
    """Tries one step of every running member, in place; members that stopped stay where they are.

    Costs one gradient evaluation, and about 17 passes over (E, N) for gradient flow.
    """
    running = state.running
    dt = torch.minimum(state.dt, dynamics.t_max - state.t)
    velocity, rate = _propose(state, dt, dynamics.rule)
    torch.addcmul(state.displacement, velocity, rate, out=weights_at).add_(state.origin)

    evaluation, gradient = evaluate(weights_at)

    norm = torch.linalg.vector_norm(gradient, dim=1)
    change = Change(
        gradient_change(state.gradient, gradient, state.gradient_norm, norm),
        _output_change(state, evaluation),
    )
    decision = dynamics.controller(dt, change)
    finite = norm.isfinite() & evaluation.loss.isfinite()
    accept = decision.accept & finite & running

    _move(state, velocity, rate, gradient, evaluation, norm, accept)
    _advance_clock(state, dt, decision.dt, accept, running)
    state.gradient_change.copy_(torch.where(running, change.gradient, state.gradient_change))
    _stop(state, evaluation, accept, running, finite, dynamics.events)


def gradient_change(old: Tensor, new: Tensor, old_norm: Tensor, new_norm: Tensor) -> Tensor:
    """r = ‖g_new - g_old‖^2 / (‖g_new‖ ‖g_old‖), (E,); 0 where either gradient is exactly zero.

    Dividing twice keeps the squares of tiny gradients (1/alpha at large alpha) from underflowing. A zero
    gradient after the step means that the step has solved a hinge loss: nothing is gained by refining it.
    """
    distance = torch.linalg.vector_norm(new - old, dim=1)
    r = (distance / old_norm) * (distance / new_norm)
    return torch.where((old_norm == 0) | (new_norm == 0), 0.0, r)


def _propose(state: FlowState, dt: Tensor, rule: StepRule) -> tuple[Tensor, Tensor]:
    """The trial velocity (E, N) and the factor (E, 1) with which it is added to dw."""
    if state.velocity is None:
        return state.gradient, -_column(dt, state.gradient)  # v = -g: the sign rides on dt, no pass over memory
    gain = _column(rule.gain(state.t, dt), state.gradient)
    velocity = torch.lerp(state.velocity, -state.gradient, gain)
    return velocity, _column(dt, velocity)


def _move(
    state: FlowState,
    velocity: Tensor,
    rate: Tensor,
    gradient: Tensor,
    evaluation: Evaluation,
    norm: Tensor,
    accept: Tensor,
) -> None:
    """Takes the step where it was accepted. The same addcmul as in the trial, so w is the w that was evaluated."""
    column = accept.unsqueeze(1)
    state.displacement.addcmul_(velocity, torch.where(column, rate, 0.0))
    if state.velocity is not None:
        _keep(state.velocity, velocity, accept)
    _keep(state.gradient, gradient, accept)
    _keep(state.gradient_norm, norm, accept)
    _keep(state.loss, evaluation.loss, accept)
    if state.outputs is not None and evaluation.outputs is not None:
        _keep(state.outputs, evaluation.outputs, accept)
    if state.margins is not None and evaluation.margins is not None:
        _keep(state.margins, evaluation.margins, accept)


def _keep(old: Tensor, new: Tensor, accept: Tensor) -> None:
    torch.where(accept.view(-1, *(1,) * (old.ndim - 1)), new, old, out=old)


def _advance_clock(state: FlowState, dt: Tensor, proposed: Tensor, accept: Tensor, running: Tensor) -> None:
    state.t.add_(torch.where(accept, dt, 0.0))
    state.tried.add_(running)
    state.accepted.add_(accept)
    # A step shortened to land on t_max says nothing about the step size that the member can bear.
    shortened = accept & (dt < state.dt)
    torch.where(running & ~shortened, proposed, state.dt, out=state.dt)


def _stop(
    state: FlowState,
    evaluation: Evaluation,
    accept: Tensor,
    running: Tensor,
    finite: Tensor,
    events: tuple[Event, ...],
) -> None:
    moment = Moment(state.t, state.tried, state.loss_start, evaluation)
    reason = first_reason(events, moment, accept)
    stationary = accept & (state.gradient_norm == 0) & (reason == 0)
    if state.velocity is not None:
        stationary = stationary & (torch.linalg.vector_norm(state.velocity, dim=1) == 0)
    stuck = ~accept & (state.t + state.dt == state.t)
    reason = torch.where(stationary, int(StopReason.STATIONARY), reason)
    reason = torch.where(stuck & finite, int(StopReason.DT_UNDERFLOW), reason)
    reason = torch.where(stuck & ~finite, int(StopReason.NON_FINITE), reason)
    torch.where(running, reason.to(torch.int8), state.reason, out=state.reason)


def _output_change(state: FlowState, evaluation: Evaluation) -> Tensor | None:
    if state.outputs is None or evaluation.outputs is None:
        return None
    return (evaluation.outputs - state.outputs).abs().flatten(1).amax(dim=1)


def _column(per_member: Tensor, like: Tensor) -> Tensor:
    return per_member.to(like.dtype).unsqueeze(1)
