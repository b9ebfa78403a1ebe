"""Events that end a member's flow, evaluated after each accepted step, on the device."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.known_masks import holds_for_none
from lazy_lightning.flow.part import FlowPart, on_device, select_rows
from lazy_lightning.flow.stop_reason import StopReason

if TYPE_CHECKING:
    from lazy_lightning.flow.state import FlowState


class Moment(NamedTuple):
    """Where a member stands after a tried step; meaningful for members whose step was accepted."""

    t: Tensor
    """(E,) float64 flow time."""
    tried: Tensor
    """(E,) int64 tried steps."""
    loss_start: Tensor
    """(E,) the loss at t = 0."""
    evaluation: Evaluation


class Event(FlowPart, ABC):
    """A condition that ends members; derive from it to write one of your own.

    See :class:`FlowPart` for what it may do. Override :meth:`__call__`, which is evaluated after each tried step, or
    :meth:`after_burst`. Where several events hold, the reason of the first in order is recorded.
    """

    reason: StopReason = StopReason.CUSTOM
    """What is recorded for a member that it ends: a named reason, or CUSTOM, which the summary explains by names."""
    after_rejected: bool = False
    """Whether it holds after a rejected step too, where the evaluation is that of the weights that were rejected."""
    needs_margins: bool = False
    """Whether ``moment.evaluation.margins`` is needed, which costs an operation on (E, n) numbers a step."""
    limit: bool = False
    """Whether a run that goes on under a higher limit lets its members go on: the event is then evaluated on their
    saved state, without margins. A run with such an event needs no other limit."""

    name: str = ""
    """What the summary calls it; by default the name of its class."""

    @property
    def landing(self) -> float:
        """A time on which steps land exactly; infinity for none. The event itself must hold there."""
        return math.inf

    def __call__(self, moment: Moment) -> Tensor | None:
        """(E,) bool: the members to stop after this step; None for an event that is not evaluated at steps."""
        return None

    def after_burst(self, state: FlowState) -> Tensor | None:
        """(E,) bool: the members to stop after this burst, whose length depends on all members; None for none.

        ``state`` is that of the running members. This is not recorded, so it may cost a pass over memory.
        """
        return None


class StructuralEvent(Event):
    """An object with a ``reason`` and ``__call__`` alone, as an :class:`Event`."""

    def __init__(self, condition: Callable[[Moment], Tensor]) -> None:
        self._condition = condition
        self.name = type(condition).__name__
        self.reason = getattr(condition, "reason", StopReason.CUSTOM)

    def __call__(self, moment: Moment) -> Tensor:
        """What the object finds."""
        return self._condition(moment)

    def select(self, rows: Tensor) -> StructuralEvent:
        """The object's own selection, if it has one."""
        return StructuralEvent(select_rows(self._condition, rows))

    def to(self, device: torch.device) -> StructuralEvent:
        """The object on a device, if it moves."""
        return StructuralEvent(on_device(self._condition, device))


def as_event(given: Event | Callable[[Moment], Tensor]) -> Event:
    """An event; an object that is callable and has a reason counts as one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, Event):
        return given
    if isinstance(given, type) or not callable(given) or not hasattr(given, "reason"):
        raise ConfigError(f"an event is {given!r}, expected an object of a class that derives from Event")
    return StructuralEvent(given)


@dataclass(frozen=True)
class MarginsMet(Event):
    """At least ``share`` of the samples have reached the margin F y >= ``margin``.

    The last one or two samples of a thousand take most of a run: ``share=0.998`` leaves them.
    """

    margin: float = 1.0
    share: float = 1.0
    reason = StopReason.MARGINS_MET
    needs_margins = True

    def __post_init__(self) -> None:
        check_arguments(MarginsMet, vars(self))
        if not 0 < self.share <= 1:
            raise ConfigError(f"margin_share is a share of the samples in (0, 1], got {self.share}")

    def __call__(self, moment: Moment) -> Tensor:
        """Whether enough samples are at or over the margin."""
        margins = moment.evaluation.margins
        if margins is None:
            raise ValueError("MarginsMet needs a closure that returns an Evaluation with margins")
        if self.share == 1:
            return margins.amin(dim=1) >= self.margin
        needed = math.ceil(self.share * margins.shape[1] - 1e-9)  # 0.1 * 30 is 3.0000000000000004
        return (margins >= self.margin).sum(dim=1) >= needed


@dataclass(frozen=True)
class LossReached(Event):
    """The training loss is at most ``level`` times its value at the start, where F = 0."""

    level: float
    reason = StopReason.LOSS_REACHED

    def __post_init__(self) -> None:
        check_arguments(LossReached, vars(self))
        if not 0 < self.level < 1:
            raise ConfigError(f"the loss to reach is a fraction of the loss at the start in (0, 1), got {self.level}")

    def __call__(self, moment: Moment) -> Tensor:
        """Compares with the level."""
        return moment.evaluation.loss <= self.level * moment.loss_start


@dataclass(frozen=True)
class TimeReached(Event):
    """t >= t_max. The last step is shortened to land on t_max exactly."""

    t_max: float
    reason = StopReason.T_MAX
    limit = True

    def __post_init__(self) -> None:
        check_arguments(TimeReached, vars(self))
        if not self.t_max > 0:
            raise ConfigError(f"t_max must be > 0, got {self.t_max}")

    @property
    def landing(self) -> float:
        """The time at which the event holds."""
        return self.t_max

    def __call__(self, moment: Moment) -> Tensor:
        """(E,) bool: t has reached t_max."""
        return moment.t >= self.t_max


@dataclass(frozen=True)
class TimesReached(Event):
    """t >= its own time for each member."""

    times: Tensor
    """(E,) float64"""
    reason = StopReason.T_MAX

    def __call__(self, moment: Moment) -> Tensor:
        """(E,) bool: t has reached each member's time."""
        return moment.t >= self.times

    def select(self, rows: Tensor) -> TimesReached:
        """The same for some of the members."""
        return TimesReached(self.times[rows])


@dataclass(frozen=True)
class StepsTried(Event):
    """A member has tried ``max_steps`` steps, accepted or not. Looked at after rejected steps too."""

    max_steps: int
    reason = StopReason.MAX_STEPS
    after_rejected = True
    limit = True

    def __post_init__(self) -> None:
        check_arguments(StepsTried, vars(self))
        if self.max_steps < 1:
            raise ConfigError(f"max_steps must be >= 1, got {self.max_steps}")

    def __call__(self, moment: Moment) -> Tensor:
        """(E,) bool: the count has reached max_steps."""
        return moment.tried >= self.max_steps


@dataclass(frozen=True)
class Stalled(Event):
    """The loss no longer falls: a margin that cannot be met is not waited for without end.

    A burst makes progress if the loss falls by a share ``fall`` of what it was after the last burst that did, or the
    gradient grows to twice what it was there (a saddle is being left). A member has stalled after ``steps`` tried steps
    without progress over which t has grown by ``t_factor``. Looked at once a burst, because a step more or less does
    not count there.

    Args:
        steps: tried steps without progress.
        t_factor: growth of t without progress.
        fall: relative fall of the loss, which is not negative.
    """

    steps: int = 5000
    t_factor: float = 4.0
    fall: float = 1e-3
    reason = StopReason.STALLED

    def __post_init__(self) -> None:
        check_arguments(Stalled, vars(self))
        if self.steps < 1 or not self.t_factor >= 1 or not 0 < self.fall < 1:
            raise ConfigError(
                f"a stall needs steps >= 1, t_factor >= 1 and fall in (0, 1), got {self.steps}, {self.t_factor} and "
                f"{self.fall}"
            )

    def after_burst(self, state: FlowState) -> Tensor:
        """Moves the milestones of members that have made progress, in place, and returns those that have stalled."""
        now = state.present_milestone()
        made = self.progress(now, state.milestone).unsqueeze(1)
        torch.where(made, now, state.milestone, out=state.milestone)
        return self.stalled(now, state.milestone)

    def stalled(self, now: Tensor, milestone: Tensor) -> Tensor:
        """(E,) bool, from (E, 4) t, tried steps, loss and ‖grad L‖, now and after the last progress."""
        return (now[:, 1] - milestone[:, 1] >= self.steps) & (now[:, 0] >= self.t_factor * milestone[:, 0])

    def progress(self, now: Tensor, milestone: Tensor) -> Tensor:
        """(E,) bool, from the same."""
        fallen = now[:, 2] < (1 - self.fall) * milestone[:, 2]
        return fallen | (now[:, 3] > 2 * milestone[:, 3])


def stop(reason: Tensor, events: tuple[Event, ...], moment: Moment, accepted: Tensor, running: Tensor) -> None:
    """Writes the first event that holds for each running member into ``reason`` (E,) int8, in place.

    Events that hold after a rejected step too are evaluated for all running members, the others where it was accepted.
    """
    for event in reversed(events):
        found = event(moment)
        if found is not None and not holds_for_none(found):
            eligible = running if event.after_rejected else accepted
            reason.masked_fill_(found & eligible, int(event.reason))
