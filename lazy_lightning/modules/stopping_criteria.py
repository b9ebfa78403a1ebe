"""StoppingCriteria: when the members of a run end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.events import Event, LossReached, MarginsMet, Stalled, StepsTried, TimeReached
from lazy_lightning.objective.losses import Loss


@dataclass(frozen=True)
class StoppingCriteria:
    """A member ends at the first of these that holds; those left out (null) never do.

    Without a limit on time or steps, a margin or a loss that cannot be reached (contradictory labels) is not waited for
    without end: a member ends once its loss no longer falls, see :class:`~lazy_lightning.flow.events.Stalled`.

    Args:
        margin: all training margins F y at least this. Null means 1 for the hinge losses, which are zero
            beyond, and never for the others, whose training has no natural end.
        margin_share: the share of the samples that must have reached the margin.
        loss: the training loss under this fraction of its start.
        t_max: flow time, landed on exactly.
        max_steps: tried steps of a member.
        max_wall: seconds of the whole fit, checked between bursts (which are shortened near the limit).
    """

    margin: float | None = None
    margin_share: float = 1.0
    loss: float | None = None
    t_max: float | None = None
    max_steps: int | None = None
    max_wall: float | None = None

    def events(self, loss: Loss, others: Sequence[Event] = ()) -> tuple[Event, ...]:
        """The events to look for on the device.

        Args:
            loss: what is trained.
            others: events besides these, which may end the run too.

        Raises:
            ConfigError: if nothing would ever stop the run, or a value is out of range.
        """
        events: list[Event] = []
        margin = 1.0 if self.margin is None and loss.has_margin_stop else self.margin
        if margin is not None:
            events.append(MarginsMet(margin, self.margin_share))
        if self.loss is not None:
            events.append(LossReached(self.loss))
        if self.t_max is not None:
            events.append(TimeReached(self.t_max))
        if self.max_steps is not None:
            events.append(StepsTried(self.max_steps))
        if self.max_wall is not None and not self.max_wall > 0:
            raise ConfigError(f"max_wall must be > 0 seconds, got {self.max_wall}")
        if not events and not others and self.max_wall is None:
            raise ConfigError(
                f"nothing would stop this run, because the loss {type(loss).__name__} has no margin at which it is "
                "zero: set one of stop.t_max, stop.loss, stop.max_steps, stop.max_wall or stop.margin"
            )
        if self.max_wall is None and not any(event.limit for event in (*events, *others)):
            events.append(Stalled())
        return tuple(events)
