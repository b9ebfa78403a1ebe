"""Observations: the moments between bursts, at which observers measure and sinks write.

An :class:`Observer` returns columns, one value a member, which stay on the device; they are brought to the host
all together, once an observation, and handed to every :class:`Sink` as a :class:`Record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor

from lazy_lightning.flow.momentum_flow import Trace
from lazy_lightning.flow.passages import Passages
from lazy_lightning.flow.state import FlowState
from lazy_lightning.modules.guarded_callback import GuardedCallback
from lazy_lightning.modules.training_state import TrainingState

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


@dataclass(frozen=True)
class Observation:
    """What members look like between two bursts of a flow, or two steps of an optimizer."""

    index: int
    """Count of observations; 0 is w0, before the first step."""
    state: FlowState | TrainingState
    """Of all E members, at their own t."""
    trace: Trace | None
    """Every step of the burst just ended, for the rows in ``rows``."""
    rows: Tensor | None
    """Members that took part in the burst; None for all. Within long steps, where members are observed by the
    integrator's interpolant, those that are at such a time; the others stay where they were observed last."""
    final: bool
    """Nothing runs any more."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """What has been measured at this observation so far, for observers that use other columns."""
    passages: Passages | None = None
    """Where members were within long steps of the burst, if an observer reads it (``reads_passages``)."""


class Record(NamedTuple):
    """One observation on the host."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
    wall: float
    """Seconds since the fit began, over all sessions of a resumed run."""
    final: bool
    columns: dict[str, NDArray[np.float64]]
    """(E,) each."""


def finite_mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite numbers, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


class Observer(GuardedCallback):
    """Measures: subclasses give columns. ``module`` is the one in training, with the attributes of
    :class:`~lazy_lightning.modules.ObservableModule`.

    An exception in :meth:`observe` does not end the run: it is logged once, and the observer's columns are NaN from
    then on. Settings that do not fit the run are refused in :meth:`check`.
    """

    looks_at_others: ClassVar[bool] = False
    """Whether it comes after the others, and finds their columns in the observation."""

    needs_all_inputs: ClassVar[bool] = False
    """Whether it needs all training inputs on the device, so that it cannot observe where devices divide them."""

    needs_shared_inputs: ClassVar[bool] = True
    """Whether it evaluates networks on samples that all members share, so that it cannot observe members with data of
    their own (``model.data_seeds``)."""

    state_by_member: ClassVar[bool] = True
    """Whether the first axis of each tensor (E, ...) in its state is that of this process's members.

    Checkpoints hold such a state of all ranks' members; another one must be that of the whole run on every rank.
    """

    reads_passages: ClassVar[bool] = False
    """Whether it reads ``observation.passages``, which are collected for such observers alone."""

    column_names: ClassVar[tuple[str, ...]] = ()
    """Columns that it always gives; they are NaN if it fails at the first observation."""

    @property
    def observes_within_steps(self) -> bool:
        """Whether all are to observe within steps that are long beside t, too, which costs an evaluation each time."""
        return False

    def applies_to(self, module: ObservableModule) -> bool:
        """Whether there is something to measure."""
        return True

    def check(self, module: ObservableModule) -> None:
        """Called before training, when data and weights are on the device.

        Raises:
            ConfigError: the observer's settings do not fit the run, which then ends before it has trained anything.
        """

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Columns by name, each (E,) on the device; names with a slash are grouped by TensorBoard."""
        return {}


class NetworkObserver(Observer):
    """Measures the networks' weights or what is inside of them, so it has nothing to do on a frozen kernel."""

    def applies_to(self, module: ObservableModule) -> bool:
        """Whether networks are trained."""
        return bool(module.trains_network)


class Sink(GuardedCallback):
    """Writes, draws or shows what has been observed; one that fails is reported, and the others still run."""

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Called once an observation, after all observers."""

    def writes_to(self, logger: Logger) -> bool:
        """Whether it writes the columns to this logger itself, so that the module does not."""
        return False
