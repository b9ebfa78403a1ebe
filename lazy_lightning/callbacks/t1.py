"""t1, the time at which a member leaves the tangent space, by three definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.kernel_drift import DRIFT, KernelDrift
from lazy_lightning.callbacks.regime import TangentDeparture
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation, Observer
from lazy_lightning.ntk.reference import TOTAL

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

Definition = Literal["half_loss", "kernel_drift", "tangent_departure"]
_COLUMNS = {"kernel_drift": f"{DRIFT}/{TOTAL}", "tangent_departure": "tangent_departure"}
_OTHERS = ", ".join(_COLUMNS)


def first_crossing(t: Tensor, values: Tensor, level: Tensor) -> Tensor:
    """Returns the time (E,) at which ``values`` first fall to ``level``, interpolated; NaN if they do not.

    The interpolation is linear in log t, and linear in t on a step that starts at t = 0.

    Args:
        t: increasing times (K, E).
        values: values (K, E) at these times.
        level: levels (E,) of the members.

    >>> first_crossing(torch.tensor([[1.0], [100.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([0.5]))
    tensor([10.])
    """
    below = values <= level
    after = below.to(torch.int8).argmax(dim=0, keepdim=True)
    before = (after - 1).clamp_min(0)
    t_a, t_b = t.gather(0, before)[0], t.gather(0, after)[0]
    v_a, v_b = values.gather(0, before)[0], values.gather(0, after)[0]
    share = torch.where(v_a == v_b, 0.0, (v_a - level) / (v_a - v_b)).to(t.dtype)
    in_log = torch.exp(torch.lerp(t_a.log(), t_b.log(), share))
    crossing = torch.where(t_a > 0, in_log, torch.lerp(t_a, t_b, share))
    return torch.where(below.any(dim=0), crossing, torch.nan)


class T1(Observer):
    """Observer of the time at which a member leaves the tangent space; ~ sqrt(h) alpha in the feature regime.

    * ``half_loss``: the train loss has fallen below half its initial value, tested after every step, as in the
      reference code. In lazy training this time is independent of alpha, and the member does not leave the tangent
      space.
    * ``kernel_drift``: ‖Theta_t - Theta_0‖/‖Theta_0‖ has reached ``drift_level``; needs :class:`KernelDrift`.
    * ``tangent_departure``: ‖F - F_lin‖/‖F‖ has reached ``departure_level``; needs :class:`TangentDeparture` with
      ``always``.

    The last two are tested when their observers measure, and interpolated in log t between these times.

    Args:
        definitions: one or more of the three definitions.
        drift_level: the level of ``kernel_drift``.
        departure_level: the level of ``tangent_departure``.

    Raises:
        ConfigError: a definition is unknown, a level is out of range, or (at the start of a run) an observer is
            missing.
    """

    looks_at_others = True

    needs_shared_inputs = False

    def __init__(
        self,
        definitions: Sequence[Definition] = ("half_loss",),
        drift_level: float = 0.1,
        departure_level: float = 0.1,
    ) -> None:
        check_arguments(T1, locals())
        given = [definitions] if isinstance(definitions, str) else definitions
        if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
            raise ConfigError(f"t1 has the definitions {definitions!r:.60}, expected some of half_loss, {_OTHERS}")
        names: list[str] = list(given)
        unknown = sorted(set(names) - {"half_loss", *_COLUMNS})
        if unknown or not names:
            raise ConfigError(f"t1 has no definition {unknown or 'at all'}, expected some of half_loss, {_OTHERS}")
        if not (drift_level > 0 and departure_level > 0):
            raise ConfigError(f"t1 needs levels > 0, got {drift_level} of the drift and {departure_level} of departure")
        self.definitions = tuple(names)
        self._levels = {"kernel_drift": drift_level, "tangent_departure": departure_level}
        self._t1: dict[str, Tensor] = {}
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``t1/DEFINITION``, which is NaN until the member has left the tangent space."""
        measured = [name for name in self.definitions if name == "half_loss" or module.trains_network]
        if observation.index == 0:
            self._t1, self._last = {}, {}
        for name in measured:
            if name not in self._t1:
                self._t1[name] = torch.full_like(observation.state.t, torch.nan)
            self._t1[name] = self._t1[name].to(observation.state.t.device)
            if name == "half_loss":
                self._update_from_loss(observation)
            else:
                self._update_from_column(name, observation)
        return {f"t1/{name}": self._t1[name] for name in measured}

    def _update_from_loss(self, observation: Observation) -> None:
        state, t1 = observation.state, self._t1["half_loss"]
        if observation.trace is not None and "half_loss" in self._last:
            rows = slice(None) if observation.rows is None else observation.rows
            t_last, loss_last = (x.to(state.t.device)[rows] for x in self._last["half_loss"])
            t = torch.cat([t_last[None], observation.trace.t])
            loss = torch.cat([loss_last[None], observation.trace.loss.double()])
            found = first_crossing(t, loss, 0.5 * state.loss_start[rows].double())
            t1[rows] = torch.where(t1[rows].isnan(), found, t1[rows])
        # Copies, because the flow updates its state in place.
        self._last["half_loss"] = (state.t.clone(), state.loss.to(torch.float64, copy=True))

    def _update_from_column(self, name: str, observation: Observation) -> None:
        t, value = observation.state.t, observation.columns[_COLUMNS[name]].double()
        # Both quantities are zero at t = 0, where the departure is 0/0.
        zero = (torch.zeros_like(t), torch.zeros_like(t))
        t_last, last = (x.to(t.device) for x in self._last.get(name, zero))
        level = torch.full_like(t, self._levels[name])
        found = first_crossing(torch.stack([t_last, t]), -torch.stack([last, value]), -level)
        self._t1[name] = torch.where(self._t1[name].isnan(), found, self._t1[name])
        is_measured = value.isfinite()
        self._last[name] = (torch.where(is_measured, t, t_last), torch.where(is_measured, value, last))

    def check(self, module: ObservableModule) -> None:
        """Raises ConfigError if the observer of a definition is missing."""
        for name in self.definitions:
            if module.trains_network:
                self._require(name, module)

    def _require(self, name: str, module: ObservableModule) -> None:
        callbacks = module.trainer.callbacks  # type: ignore[attr-defined]
        if name == "kernel_drift" and not any(isinstance(c, KernelDrift) for c in callbacks):
            raise ConfigError(
                "t1 by kernel_drift needs the KernelDrift observer, which this run does not have: add --config "
                "callbacks/ntk.yaml"
            )
        if name == "tangent_departure" and not any(isinstance(c, TangentDeparture) and c.always for c in callbacks):
            raise ConfigError(
                "t1 by tangent_departure needs the TangentDeparture observer with always: true, which this run does "
                "not have: add --config callbacks/tangent.yaml"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for the checkpoint, so that a resumed run finds the same t1."""
        last = {name: {"t": t, "value": value} for name, (t, value) in self._last.items()}
        return {"t1": self._t1, "last": last} if self._t1 else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        if state_dict:
            self._t1 = dict(state_dict["t1"])
            self._last = {name: (held["t"], held["value"]) for name, held in state_dict["last"].items()}
