"""Observers that are expensive: they measure a member each time t has grown by a factor, and when it stops."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

_BEFORE_ALL = -1e9
"""A power of t_factor below that of any flow time."""


class Measurements(NamedTuple):
    """The last measurement of each member."""

    power: Tensor
    """(E,) float64, the power of t_factor at the measurement."""
    settled: Tensor
    """(E,) bool, whether the member is not measured again: measured after it stopped, or broken."""
    columns: dict[str, Tensor]
    """The columns of the last record."""

    @classmethod
    def none(cls, members: int) -> Measurements:
        """Returns those of members that have not been measured."""
        return cls(torch.full((members,), _BEFORE_ALL, dtype=torch.float64), torch.zeros(members, dtype=torch.bool), {})

    def to(self, device: torch.device) -> Measurements:
        """Returns a copy on a device."""
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return Measurements(self.power.to(device), self.settled.to(device), columns)


class MeasuredAtTimes(NetworkObserver):
    """An observer that measures a member when its t has passed the next power of ``t_factor``, and when it stops.

    In other records its columns are NaN, and after a member has stopped they keep their values. Subclasses implement
    :meth:`measure` and set ``column_names``.

    Args:
        t_factor: ratio of t between measurements; None measures at every observation, ``inf`` only at the start and
            the end.

    Raises:
        ConfigError: ``t_factor`` is not over 1.
    """

    def __init__(self, t_factor: float | None) -> None:
        check_arguments(MeasuredAtTimes, locals())
        if t_factor is not None and not t_factor > 1:
            raise ConfigError(
                f"{type(self).__name__} needs t_factor > 1, or null for every observation, got {t_factor}: set for "
                "example 1.5"
            )
        self.t_factor = t_factor
        self._last: Measurements | None = None

    @abstractmethod
    def measure(self, module: ObservableModule, observation: Observation, rows: Tensor) -> Mapping[str, Tensor]:
        """Columns of the members ``rows`` (R,) at their present weights, (R,) each."""

    def last_passed(self, module: ObservableModule, observation: Observation) -> Tensor:
        """(E,) float64, by which a member is measured: whenever it exceeds that of the last measurement.

        Here it is the last power of ``t_factor`` that t has passed.
        """
        return _last_power(observation, self.t_factor)

    def broken(self, columns: Mapping[str, Tensor]) -> Tensor | None:
        """(E,) bool: the measured members that are not measured any more although they run; by default none."""
        return None

    def warn_of_broken(self, module: ObservableModule, broken: Tensor, t: Tensor) -> None:
        """Called after a measurement with the members (E,) that it has shown to be :meth:`broken`."""

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns the columns of the class."""
        state = observation.state
        if observation.index == 0:
            self._last = None
        last = self._resumed((self._last or Measurements.none(len(state.t))).to(state.t.device), state.running)
        power = self.last_passed(module, observation)
        due = ~last.settled & ((power > last.power) | ~state.running)
        rows = due.nonzero().flatten()
        measured = self.measure(module, observation, rows) if len(rows) else {}
        columns = {name: torch.full_like(state.t, torch.nan) for name in measured or last.columns}
        for name, column in list(columns.items()):
            if name in last.columns:
                column = torch.where(last.settled, last.columns[name], column)
            if name in measured:
                column[rows] = measured[name].to(column)
            columns[name] = column
        settled = last.settled | (due & ~state.running)
        broken = self.broken(columns)
        if broken is not None:
            broken = due & state.running & broken
            settled |= broken
            if measured:  # else no member is, and a transfer from the device is avoided
                self.warn_of_broken(module, broken, state.t)
        self._last = Measurements(torch.where(due, power, last.power), settled, columns)
        return columns

    def _resumed(self, last: Measurements, running: Tensor) -> Measurements:
        """Returns a copy in which members that run again, because a limit has been raised, are measured again."""
        broken = self.broken(last.columns) if last.columns else None
        keeps = ~running if broken is None else ~running | broken
        return last._replace(settled=last.settled & keeps)

    def state_dict(self) -> dict[str, Any]:
        """Returns the last measurements for the checkpoint."""
        return {} if self._last is None else self._last._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the last measurements from a checkpoint."""
        if state_dict:
            self._last = Measurements(**state_dict)


def _last_power(observation: Observation, t_factor: float | None) -> Tensor:
    """Returns the last power of t_factor that t has passed, (E,); the observation's index if t_factor is None."""
    t = observation.state.t
    if t_factor is None:
        return torch.full_like(t, observation.index)
    if t_factor == math.inf:
        return torch.zeros_like(t)
    return torch.floor(t.log() / math.log(t_factor) + 1e-12).clamp_min(_BEFORE_ALL + 1)
