"""One tried step of the flow: move, evaluate once, judge, keep or go back. No host synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lazy_lightning.flow.controllers import Change, Controller
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.events import Event, Moment, stop
from lazy_lightning.flow.part import select_rows
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.stop_reason import StopReason

_NOISE, _JUMP = 0.02, 4.0
"""A smooth flow does not come to this r, and to this many times the r before, in one step: dt grows gradually."""
_UNBOUNDED = 1 / torch.finfo(torch.float64).eps
"""r where the new gradient is exactly zero: finite, so that a controller which accepts any step accepts that."""

Evaluate = Callable[[Tensor], tuple[Evaluation, Tensor]]
"""From weights (E, N) to the evaluation there and the gradient (E, N)."""


@dataclass(frozen=True)
class Dynamics:
    """How to step: the rule, who judges the step, and what ends a member."""

    rule: StepRule
    controller: Controller
    events: tuple[Event, ...]
    t_max: float | Tensor = float("inf")
    """Steps are shortened to land on it; a tensor (K, E) has times for each member, landed on one after the other."""

    def select(self, rows: Tensor) -> Dynamics:
        """The same for some of the members."""
        t_max = self.t_max[..., rows] if isinstance(self.t_max, Tensor) else self.t_max
        rule, controller = select_rows(self.rule, rows), select_rows(self.controller, rows)
        events = tuple(event.select(rows) for event in self.events)
        return replace(self, rule=rule, controller=controller, events=events, t_max=t_max)


def initial_state(origin: Tensor, weights_at: Tensor, evaluate: Evaluate, dynamics: Dynamics, dt: float) -> FlowState:
    """The state at t = 0, after the one evaluation at w0. ``weights_at`` (E, N) is the buffer of trial weights."""
    members, device = len(origin), origin.device
    evaluation, gradient = evaluate(weights_at.copy_(origin))
    norm = torch.linalg.vector_norm(gradient, dim=1).double()
    loss = evaluation.loss.clone()
    finite = _finite(norm, loss)
    given = evaluation.gradient_scale
    scale = norm if given is None else torch.maximum(norm, given.to(norm).where(given.isfinite(), 0.0))
    reason = torch.where(finite, int(StopReason.RUNNING), int(StopReason.NON_FINITE)).to(torch.int8)
    if given is not None:  # no sample pulls at all: not the rest of pulls that cancel
        unmoved = scale == 0 if evaluation.flat is None else (scale == 0) & ~evaluation.flat
        reason.masked_fill_(unmoved, int(StopReason.NO_GRADIENT))
    clock = torch.zeros(members, dtype=torch.float64, device=device)
    count = torch.zeros(members, dtype=torch.int64, device=device)
    return FlowState(
        origin=origin,
        displacement=torch.zeros_like(origin),
        gradient=torch.where(finite.unsqueeze(1), gradient, 0.0),  # a NaN would spread to dw through 0 * NaN
        velocity=torch.zeros_like(origin) if dynamics.rule.has_velocity else None,
        outputs=None if evaluation.outputs is None else evaluation.outputs.clone(),
        loss=loss,
        loss_start=loss.clone(),
        gradient_norm=norm,
        gradient_scale=scale.clone(),
        gradient_change=clock.clone(),
        t=clock,
        dt=torch.full_like(clock, dt),
        tried=count,
        accepted=count.clone(),
        reason=reason,
        milestone=torch.stack([clock, clock, loss.double(), norm], dim=1),
    )


def try_step(state: FlowState, weights_at: Tensor, evaluate: Evaluate, dynamics: Dynamics) -> Tensor:
    """Tries one step of every running member, in place; members that stopped stay where they are.

    Returns (E,) whether the step has shown that the gradient is nothing but rounding, for :func:`settle`.

    Costs one gradient evaluation, some fifty operations on (E,) numbers, and for gradient flow 17 passes over
    (E, N): dw + dt v (3), + w0 (3), g_new - g (3) and its norm (1), the norm of g_new (1), dw (3), g (3).
    """
    running = state.running
    dt, landing = state.dt, _landing(state.t, dynamics.t_max)
    if isinstance(landing, Tensor) or landing != float("inf"):
        dt = torch.minimum(dt, landing - state.t)
    velocity, rate = _propose(state, dt, dynamics.rule)
    torch.addcmul(state.displacement, velocity, rate.unsqueeze(1), out=weights_at).add_(state.origin)

    evaluation, gradient = evaluate(weights_at)

    norm = torch.linalg.vector_norm(gradient, dim=1).double()
    real = state.gradient_norm > _negligible(state)
    near = real if evaluation.flat is None else real & ~evaluation.flat
    r = relative_gradient_change(
        state.gradient, gradient, state.gradient_norm, norm, near * _UNBOUNDED, scratch=weights_at
    )
    noise = real < (r >= (_JUMP * state.gradient_change).clamp_min(_NOISE))  # and not real
    output = _output_change(state, evaluation) if dynamics.controller.watches_outputs else None
    decision = dynamics.controller(dt, Change(r, output))
    accept = decision.accept & _finite(norm, evaluation.loss) & running

    _move(state, velocity, rate, gradient, evaluation, norm, accept)
    _advance_clock(state, dt, decision.dt, r, accept, running, landing)
    stop(state.reason, dynamics.events, Moment(state.t, state.tried, state.loss_start, evaluation), accept, running)
    _halt(state, real, noise)
    return noise


def _landing(t: Tensor, t_max: float | Tensor) -> float | Tensor:
    """Of several times, the first that lies ahead of each member; infinity where none does.

    So that those who wait are not tried backwards: a step by -1000 tau gives NaN, which spreads to dw.
    """
    if not isinstance(t_max, Tensor):
        return t_max
    return torch.where(t_max > t, t_max, torch.inf).amin(dim=0)


def _negligible(state: FlowState) -> Tensor:
    """(E,) gradients that are nothing but rounding are at most this long; longer ones may be honest."""
    share: float = torch.finfo(state.gradient.dtype).eps ** 0.75
    return share * state.gradient_scale


def _halt(state: FlowState, real: Tensor, noise: Tensor) -> None:
    """Stops members that cannot move any more, at once: their clocks must not depend on where a burst ends.

    The gradient exactly zero, or ``noise`` (E,), so negligible and changed by so much in one step that it is nothing
    but rounding: stationary. A step too short to change t: likewise where the gradient was not ``real`` (E,), else
    underflow, or non-finite if that is what the trial was, however short.
    """
    if state.velocity is None:
        still = (state.gradient_norm == 0) | noise
        state.reason.masked_fill_(still & state.running, int(StopReason.STATIONARY))
    underflow = (state.t + state.dt == state.t) & state.running
    state.reason.masked_fill_(underflow, int(StopReason.DT_UNDERFLOW))
    state.reason.masked_fill_(underflow > real, int(StopReason.STATIONARY))
    state.reason.masked_fill_(underflow & (state.gradient_change * 0 != 0), int(StopReason.NON_FINITE))


def settle(state: FlowState, noise: Tensor | None, events: tuple[Event, ...]) -> None:
    """Stops members of zero gradient whose velocity has died away too, and those that events end after a burst.

    Looked at once a burst, for it costs a pass. Where a step of the burst has shown the gradient to be ``noise`` (E,),
    the velocity may be of its size.
    """
    if state.velocity is not None:
        speed = torch.linalg.vector_norm(state.velocity, dim=1)
        small = torch.maximum(state.gradient_norm, speed) <= _negligible(state)
        at_rest = state.gradient_norm + speed == 0
        if noise is not None:
            at_rest |= noise & small
        state.reason.masked_fill_(at_rest & state.running, int(StopReason.STATIONARY))
    for event in events:
        found = event.after_burst(state)
        if found is not None:
            state.reason.masked_fill_(found & state.running, int(event.reason))


def relative_gradient_change(
    old: Tensor, new: Tensor, old_norm: Tensor, new_norm: Tensor, vanished: Tensor, scratch: Tensor | None = None
) -> Tensor:
    """r = ‖g_new - g_old‖^2 / (‖g_new‖ ‖g_old‖), (E,) float64; ``vanished`` where either gradient is exactly zero.

    A flow approaches a stationary point without end, so a step that lands on one is too long, and r beyond bounds. In
    the flat part of a piecewise linear loss, or where the old gradient was negligible, nothing is gained by refining
    it: 0.

    Norms of float32 gradients are squared in float64: at large alpha, where g ~ 1/alpha, they would underflow. The
    difference is written to ``scratch`` (E, N) if given: new memory of that size costs more than the subtraction.
    """
    distance = torch.linalg.vector_norm(torch.sub(new, old, out=scratch), dim=1).double()
    scale = old_norm * new_norm
    return torch.where(scale == 0, vanished, distance * distance / scale)


def _finite(norm: Tensor, loss: Tensor) -> Tensor:
    return (norm + loss) * 0 == 0  # NaN and inf alike; a third of the operations of two isfinite


def _propose(state: FlowState, dt: Tensor, rule: StepRule) -> tuple[Tensor, Tensor]:
    """The trial velocity (E, N) and the factor (E,) with which it is added to dw."""
    dtype = state.gradient.dtype
    if state.velocity is None:
        return state.gradient, (-dt).to(dtype)  # v = -g: the sign rides on dt, no pass over memory
    gain = rule.gain(state.t, dt).to(dtype).unsqueeze(1)
    return torch.lerp(state.velocity, -state.gradient, gain), dt.to(dtype)


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
    state.displacement.addcmul_(velocity, (rate * accept).unsqueeze(1))
    if state.velocity is not None:
        _keep(state.velocity, velocity, accept)
    _keep(state.gradient, gradient, accept)
    _keep(state.gradient_norm, norm, accept)
    torch.maximum(state.gradient_scale, state.gradient_norm, out=state.gradient_scale)
    _keep(state.loss, evaluation.loss, accept)
    if state.outputs is not None and evaluation.outputs is not None:
        _keep(state.outputs, evaluation.outputs, accept)


def _keep(old: Tensor, new: Tensor, accept: Tensor) -> None:
    torch.where(accept.view(-1, *(1,) * (old.ndim - 1)), new, old, out=old)


def _advance_clock(
    state: FlowState, dt: Tensor, proposed: Tensor, r: Tensor, accept: Tensor, running: Tensor, landing: float | Tensor
) -> None:
    lands = None if dt is state.dt else accept & (dt == landing - state.t)
    state.t.add_(dt * accept)
    state.tried.add_(running)
    state.accepted.add_(accept)
    moves = running
    if lands is not None:
        state.t.copy_(torch.where(lands, landing, state.t))  # t + (t_max - t) may round to a neighbour of t_max
        # A step shortened to land on t_max says nothing about the step size that the member can bear.
        moves = running & ~(accept & (dt < state.dt))
    torch.where(moves, proposed, state.dt, out=state.dt)
    torch.where(running, r, state.gradient_change, out=state.gradient_change)


def _output_change(state: FlowState, evaluation: Evaluation) -> Tensor:
    if state.outputs is None or evaluation.outputs is None:
        raise TypeError(
            "this controller bounds the change of the outputs, so the closure must return an Evaluation with outputs"
        )
    return (evaluation.outputs - state.outputs).abs().flatten(1).amax(dim=1)
