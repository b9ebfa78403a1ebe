"""Observers that are expensive: they measure a member each time t has grown by a factor, and when it stops."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

BEFORE_ALL = -1e9
"""A power of t_factor below that of any flow time."""


def check_t_factor(owner: object, t_factor: float | None) -> float | None:
    """Returns the ratio of t between measurements of an observer.

    Raises:
        ConfigError: it is neither None nor over 1.
    """
    if t_factor is not None and not t_factor > 1:
        raise ConfigError(
            f"{type(owner).__name__} needs t_factor > 1, or null for every observation, got {t_factor}: set for "
            "example 1.5"
        )
    return t_factor


def last_power(observation: Observation, t_factor: float | None) -> Tensor:
    """Returns the last power of t_factor that t has passed, (E,); the observation's index if t_factor is None."""
    t = observation.state.t
    if t_factor is None:
        return torch.full_like(t, observation.index)
    if t_factor == math.inf:
        return torch.zeros_like(t)
    return torch.floor(t.log() / math.log(t_factor) + 1e-12).clamp_min(BEFORE_ALL + 1)


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
        self.t_factor = check_t_factor(self, t_factor)
        self._last: dict[str, Tensor] = {}

    @abstractmethod
    def measure(self, module: ObservableModule, observation: Observation, rows: Tensor) -> Mapping[str, Tensor]:
        """Columns of the members ``rows`` (R,) at their present weights, (R,) each, named as ``column_names``."""

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns the columns of the class."""
        state = observation.state
        if observation.index == 0:
            self._last = {}
        missing = torch.full_like(state.t, torch.nan)
        last = {name: column.to(state.t.device) for name, column in self._last.items()}
        measured = last.get("power", torch.full_like(state.t, BEFORE_ALL))
        settled = last.get("settled", torch.zeros_like(state.running)) & ~state.running  # a limit may have been raised
        power = last_power(observation, self.t_factor)
        due = ~settled & ((power > measured) | ~state.running)
        rows = due.nonzero().flatten()
        found = self.measure(module, observation, rows) if len(rows) else {}
        columns = {}
        for name in self.column_names:
            columns[name] = torch.where(settled, last.get(name, missing), missing)
            if name in found:
                columns[name][rows] = found[name].to(missing)
        self._last = {
            **columns,
            "power": torch.where(due, power, measured),
            "settled": settled | (due & ~state.running),
        }
        return columns

    def state_dict(self) -> dict[str, Any]:
        """Returns the last measurements for the checkpoint."""
        return dict(self._last)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the last measurements from a checkpoint."""
        self._last = dict(state_dict)
