"""One attempt at a step of the flow, with its clocks and the ends of members. No host synchronisation of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.events import Event, Moment, stop
from lazy_lightning.flow.gradient_change import negligible
from lazy_lightning.flow.integrator import Attempt, Decide, Integrator, finite, keep, keep_evaluation, own_decision
from lazy_lightning.flow.interpolant import Interpolant
from lazy_lightning.flow.known_masks import holds_for_all, holds_for_none
from lazy_lightning.flow.part import select_rows
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.stop_reason import StopReason


@dataclass(frozen=True)
class Dynamics:
    """What is followed, how, and what ends a member."""

    rule: StepRule
    integrator: Integrator
    events: tuple[Event, ...]
    t_max: float | Tensor = float("inf")
    """Steps are shortened to land on it; a tensor (K, E) has times for each member, landed on one after the other."""
    decide: Decide = own_decision
    """Of :class:`~lazy_lightning.flow.integrator.Attempt`."""

    def select(self, rows: Tensor) -> Dynamics:
        """The same for some of the members."""
        t_max = self.t_max[..., rows] if isinstance(self.t_max, Tensor) else self.t_max
        rule, integrator = select_rows(self.rule, rows), self.integrator.select(rows)
        events = tuple(event.select(rows) for event in self.events)
        return replace(self, rule=rule, integrator=integrator, events=events, t_max=t_max)


def initial_state(origin: Tensor, weights_at: Tensor, evaluate: Evaluator, dynamics: Dynamics, dt: float) -> FlowState:
    """The state at t = 0, after the one evaluation at w0. ``weights_at`` (E, N) is the buffer of trial weights."""
    members, device = len(origin), origin.device
    evaluation, gradient = evaluate.initial(weights_at.copy_(origin))
    norm = torch.linalg.vector_norm(gradient, dim=1).double()
    loss = evaluation.loss.clone()
    usable = finite(norm, loss)
    given = evaluation.gradient_scale
    scale = norm if given is None else torch.maximum(norm, given.to(norm).where(given.isfinite(), 0.0))
    reason = torch.where(usable, int(StopReason.RUNNING), int(StopReason.NON_FINITE)).to(torch.int8)
    if given is not None:  # no sample pulls at all: not the rest of pulls that cancel
        unmoved = scale == 0 if evaluation.flat is None else (scale == 0) & ~evaluation.flat
        reason.masked_fill_(unmoved, int(StopReason.NO_GRADIENT))
    clock = torch.zeros(members, dtype=torch.float64, device=device)
    count = torch.zeros(members, dtype=torch.int64, device=device)
    state = FlowState(
        origin=origin,
        displacement=torch.zeros_like(origin),
        gradient=torch.where(usable.unsqueeze(1), gradient, 0.0),  # a NaN would spread to dw through 0 * NaN
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
    state.dt.copy_(dynamics.integrator.first_dt(state, dynamics.rule))
    state.memory.update(dynamics.integrator.memory(state, evaluation))
    return state


class Tried(NamedTuple):
    """What an attempt at a step has shown."""

    noise: Tensor
    """(E,) bool: the gradient is rounding error alone, for :func:`settle`."""
    interpolant: Interpolant | None
    """Where members were within the step."""


def try_step(state: FlowState, weights_at: Tensor, evaluate: Evaluator, dynamics: Dynamics) -> Tried:
    """Attempts one step of every running member, in place; members that stopped stay where they are.

    Costs what the integrator's attempt costs, and some thirty operations on (E,) numbers.
    """
    running, integrator = state.running, dynamics.integrator
    dt, landing = state.dt, _landing(state.t, dynamics.t_max)
    if isinstance(landing, Tensor) or landing != float("inf"):
        dt = torch.minimum(dt, landing - state.t)
    outcome = integrator.attempt(
        Attempt(state, dynamics.rule, dt, running, weights_at, evaluate, dynamics.events, dynamics.decide)
    )
    accept = outcome.accept
    _advance_clock(state, dt, outcome.dt, outcome.change, accept, running, landing, integrator.evaluations)
    moment = Moment(state.t, state.tried, state.loss_start, outcome.evaluation)
    stop(state.reason, dynamics.events, moment, accept, running)
    _halt(state, outcome.real, outcome.noise)
    return Tried(outcome.noise, outcome.interpolant)


def _landing(t: Tensor, t_max: float | Tensor) -> float | Tensor:
    """Of several times, the first that lies ahead of each member; infinity where none does.

    So that those who wait are not tried backwards: a step by -1000 tau gives NaN, which spreads to dw.
    """
    if not isinstance(t_max, Tensor):
        return t_max
    return torch.where(t_max > t, t_max, torch.inf).amin(dim=0)


def _halt(state: FlowState, real: Tensor, noise: Tensor) -> None:
    """Stops members that cannot move any more, at once: their clocks must not depend on where a burst ends.

    The gradient exactly zero, or ``noise`` (E,), so negligible and changed by so much in one step that it is nothing
    but rounding: stationary. A step too short to change t: likewise where the gradient was not ``real`` (E,), else
    underflow, or non-finite if that is what the trial was, however short.
    """
    underflow = state.t + state.dt == state.t
    if state.velocity is None:
        if holds_for_none(underflow) and holds_for_none(noise) and holds_for_all(state.gradient_norm):
            return
        still = (state.gradient_norm == 0) | noise
        state.reason.masked_fill_(still & state.running, int(StopReason.STATIONARY))
    elif holds_for_none(underflow):
        return
    underflow = underflow & state.running
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
        small = torch.maximum(state.gradient_norm, speed) <= negligible(state)
        at_rest = state.gradient_norm + speed == 0
        if noise is not None:
            at_rest |= noise & small
        state.reason.masked_fill_(at_rest & state.running, int(StopReason.STATIONARY))
    for event in events:
        found = event.after_burst(state)
        if found is not None:
            state.reason.masked_fill_(found & state.running, int(event.reason))


def confirm_ends(state: FlowState, ended: Tensor, weights_at: Tensor, evaluate: Evaluator, dynamics: Dynamics) -> None:
    """Evaluates members that have ``ended`` (E,) in this burst at their weights; those whose event does not hold go on.

    For integrators whose loss and outputs are approximate. One evaluation of all members.
    """
    torch.add(state.origin, state.displacement, out=weights_at)
    evaluation, gradient = evaluate(weights_at)
    norm = torch.linalg.vector_norm(gradient, dim=1).double()
    keep_evaluation(state, evaluation, gradient, norm, ended)
    moment = Moment(state.t, state.tried, state.loss_start, evaluation)
    confirmed, checked = torch.zeros_like(ended), torch.zeros_like(ended)
    for event in dynamics.events:
        found = event(moment)
        if found is not None:
            checked |= state.reason == int(event.reason)
            confirmed |= found
    state.reason.masked_fill_(ended & checked & ~confirmed, int(StopReason.RUNNING))


def _advance_clock(
    state: FlowState,
    dt: Tensor,
    proposed: Tensor,
    r: Tensor,
    accept: Tensor,
    running: Tensor,
    landing: float | Tensor,
    evaluations: int,
) -> None:
    lands = None if dt is state.dt else accept & (dt == landing - state.t)
    keep(state.t, state.t + dt, accept)
    state.tried.add_(running, alpha=evaluations)
    state.accepted.add_(accept)
    moves = running
    if lands is not None and not holds_for_none(lands):
        state.t.copy_(torch.where(lands, landing, state.t))  # t + (t_max - t) may round to a neighbour of t_max
        # A step shortened to land on t_max says nothing about the step size that the member can bear.
        moves = running & ~(accept & (dt < state.dt))
    keep(state.dt, proposed, moves)
    keep(state.gradient_change, r, running)
