"""Where within a step an event first holds, by interpolation between its ends; and the step that ends there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.events import Event, Moment
from lazy_lightning.flow.integrator import MARGINS, Attempt, rms

_HALVINGS = 12


class Crossing(NamedTuple):
    """The first event in a step, by member."""

    found: Tensor
    """(E,) bool: an event holds at the end of the step."""
    fraction: Tensor
    """(E,) float64 in [0, 1], the share of the step after which it first holds; 1 where none is found."""


def relocate(
    attempt: Attempt, evaluation: Evaluation, accept: Tensor, following: Tensor, tol: float
) -> tuple[Tensor, Tensor]:
    """Rejects an accepted step that passes an event by more than ``tol`` in F or a thirtieth of t; then aims at it.

    The step that is tried instead ends just behind the event, so that it holds there.

    Returns:
        (E,) whether the step is accepted, and (E,) the next dt.
    """
    state, dt, crossing = attempt.state, attempt.dt, _crossing_of(attempt, evaluation)
    if state.outputs is None or evaluation.outputs is None:
        allowed = torch.full_like(dt, tol)
    else:
        allowed = (tol / rms(evaluation.outputs - state.outputs)).clamp(max=1.0)
    allowed = torch.minimum(allowed, 0.03 * (state.t + dt) / dt)
    passed = accept & crossing.found & (1 - crossing.fraction > allowed)
    aimed = dt * (crossing.fraction + allowed / 2)
    return accept & ~passed, torch.where(passed, aimed, following)


def _crossing_of(attempt: Attempt, evaluation: Evaluation) -> Crossing:
    """Where in the step an event first holds."""
    state = attempt.state
    start = Evaluation(state.loss, state.outputs, state.memory.get(MARGINS))
    before = Moment(state.t, state.tried, state.loss_start, start)
    after = Moment(state.t + attempt.dt, state.tried, state.loss_start, evaluation)
    return first_crossing(attempt.events, before, after)


def first_crossing(events: tuple[Event, ...], before: Moment, after: Moment) -> Crossing:
    """Bisects the events between both ends of a step; loss, outputs and margins are interpolated linearly.

    Events that end members after rejected steps too depend on counts, not on the trajectory, and are left out.
    An event that holds at the start of the step already counts as found at once.
    """
    watched = tuple(event for event in events if not event.after_rejected)
    found = _any_holds(watched, after)
    if found.device.type == "cpu" and not bool(found.any()):  # elsewhere reading this would wait for the device
        return Crossing(found, torch.ones_like(after.t))
    low, high = torch.zeros_like(after.t), torch.ones_like(after.t)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holds = _any_holds(watched, _between(before, after, middle))
        high, low = torch.where(holds, middle, high), torch.where(holds, low, middle)
    return Crossing(found, torch.where(found, high, 1.0))


def _any_holds(events: tuple[Event, ...], moment: Moment) -> Tensor:
    found = torch.zeros_like(moment.t, dtype=torch.bool)
    for event in events:
        holds = event(moment)
        if holds is not None:
            found = found | holds
    return found


def _between(before: Moment, after: Moment, share: Tensor) -> Moment:
    def blend(old: Tensor | None, new: Tensor | None) -> Tensor | None:
        if old is None or new is None:
            return None
        weight = share.to(new.dtype).view(-1, *(1,) * (new.ndim - 1))
        return torch.lerp(old, new, weight)

    old, new = before.evaluation, after.evaluation
    loss = blend(old.loss, new.loss)
    assert loss is not None  # every evaluation has one
    evaluation = Evaluation(loss, blend(old.outputs, new.outputs), blend(old.margins, new.margins), new.flat)
    return Moment(torch.lerp(before.t, after.t, share), after.tried, after.loss_start, evaluation)
