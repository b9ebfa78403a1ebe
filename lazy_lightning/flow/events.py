"""Events that end a member's flow, looked at after each accepted step, on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.stop_reason import StopReason


class Moment(NamedTuple):
    """Where a member stands after a tried step; meaningful for members whose step was accepted."""

    t: Tensor
    """(E,) float64 flow time."""
    tried: Tensor
    """(E,) int64 tried steps."""
    loss_start: Tensor
    """(E,) the loss at t = 0."""
    evaluation: Evaluation


class Event(Protocol):
    """A condition with a name."""

    @property
    def reason(self) -> StopReason:
        """What is recorded for a member it stops."""
        ...

    def __call__(self, moment: Moment) -> Tensor:
        """(E,) bool: the members to stop."""
        ...


@dataclass(frozen=True)
class MarginsMet:
    """At least ``share`` of the samples have reached the margin F y >= ``margin``.

    The last one or two samples of a thousand take most of a run: ``share=0.998`` leaves them.
    """

    margin: float = 1.0
    share: float = 1.0
    reason = StopReason.MARGINS_MET

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"margin_share is a share of the samples in (0, 1], got {self.share}")

    def __call__(self, moment: Moment) -> Tensor:
        """Counts the samples at or over the margin."""
        margins = moment.evaluation.margins
        if margins is None:
            raise ValueError("MarginsMet needs a closure that returns an Evaluation with margins")
        needed = math.ceil(self.share * margins.shape[1] - 1e-9)  # 0.1 * 30 is 3.0000000000000004
        return (margins >= self.margin).sum(dim=1) >= needed


@dataclass(frozen=True)
class LossReached:
    """The training loss is at most ``level`` times its value at the start, where F = 0."""

    level: float
    reason = StopReason.LOSS_REACHED

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ConfigError(f"the loss to reach is a fraction of the loss at the start in (0, 1), got {self.level}")

    def __call__(self, moment: Moment) -> Tensor:
        """Compares with the level."""
        return moment.evaluation.loss <= self.level * moment.loss_start


@dataclass(frozen=True)
class TimeReached:
    """t >= t_max. The last step is shortened to land on t_max exactly."""

    t_max: float
    reason = StopReason.T_MAX

    def __post_init__(self) -> None:
        if not self.t_max > 0:
            raise ConfigError(f"t_max must be > 0, got {self.t_max}")

    def __call__(self, moment: Moment) -> Tensor:
        """Compares the time."""
        return moment.t >= self.t_max


@dataclass(frozen=True)
class TimesReached:
    """t >= its own time for each member."""

    times: Tensor
    """(E,) float64"""
    reason = StopReason.T_MAX

    def __call__(self, moment: Moment) -> Tensor:
        """Compares the times."""
        return moment.t >= self.times

    def select(self, rows: Tensor) -> TimesReached:
        """The same for some of the members."""
        return TimesReached(self.times[rows])


@dataclass(frozen=True)
class StepsTried:
    """A member has tried ``max_steps`` steps, accepted or not. Looked at after rejected steps too."""

    max_steps: int
    reason = StopReason.MAX_STEPS

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps must be >= 1, got {self.max_steps}")

    def __call__(self, moment: Moment) -> Tensor:
        """Compares the count."""
        return moment.tried >= self.max_steps


@dataclass(frozen=True)
class Stalled:
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
        if self.steps < 1 or not self.t_factor >= 1 or not 0 < self.fall < 1:
            raise ConfigError(
                f"a stall needs steps >= 1, t_factor >= 1 and fall in (0, 1), got {self.steps}, {self.t_factor} and "
                f"{self.fall}"
            )

    def __call__(self, now: Tensor, milestone: Tensor) -> Tensor:
        """(E,) bool, from (E, 4) t, tried steps, loss and ‖grad L‖, now and after the last progress."""
        return (now[:, 1] - milestone[:, 1] >= self.steps) & (now[:, 0] >= self.t_factor * milestone[:, 0])

    def progress(self, now: Tensor, milestone: Tensor) -> Tensor:
        """(E,) bool, from the same."""
        fallen = now[:, 2] < (1 - self.fall) * milestone[:, 2]
        return fallen | (now[:, 3] > 2 * milestone[:, 3])


def stop(reason: Tensor, events: tuple[Event, ...], moment: Moment, accepted: Tensor, running: Tensor) -> None:
    """Writes the first event that holds for each running member into ``reason`` (E,) int8, in place.

    The limit on tried steps holds after a rejected step too; the others look at what was accepted.
    """
    for event in reversed(events):
        asked = running if event.reason is StopReason.MAX_STEPS else accepted
        reason.masked_fill_(event(moment) & asked, int(event.reason))
