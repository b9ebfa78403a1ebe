"""t1, the time at which a member leaves the tangent space, by three definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.kernel_drift import DRIFT, KernelDrift
from lazy_lightning.callbacks.level_crossing import first_crossing
from lazy_lightning.callbacks.regime import TangentDeparture
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation, Observer
from lazy_lightning.ntk.reference import TOTAL

if TYPE_CHECKING:
    from lazy_lightning.flow.passages import Passages, Point
    from lazy_lightning.modules.observable_module import FlowingModule, ObservableModule

Definition = Literal["half_loss", "kernel_drift", "tangent_departure"]
_COLUMNS = {"kernel_drift": f"{DRIFT}/{TOTAL}", "tangent_departure": "tangent_departure"}
_OTHERS = ", ".join(_COLUMNS)
_LONG_STEP = 1.25
"""Steps that multiply t by more than this are interpolated by a parabola."""


def _grown_to(points: Sequence[tuple[Tensor, Tensor]], level: Tensor, *, in_log: bool = True) -> Tensor:
    """(E,) when the last of three values at times, (E,) each, has reached the level (E,); NaN if it has not.

    The interpolation is exact for a power of t, and for t itself from t = 0 on; without ``in_log`` it is that of the
    values themselves, which may be negative.
    """
    t, values = (torch.stack(parts) for parts in zip(*points, strict=True))
    if in_log:
        grows = values[1] > 0
        values, level = torch.where(grows, values.log(), values), torch.where(grows, level.log(), level)
    return first_crossing(t, -values, -level, curved_beyond=1.0)


def _bisected(
    points: Sequence[tuple[Tensor, Tensor]],
    inside: Sequence[Point],
    level: Tensor,
    value_at: Callable[[Point], Tensor],
    *,
    in_log: bool,
) -> Tensor:
    """() when a value of one member has reached the level between the last two of three points (t, value), () each.

    Args:
        points: of which the last alone has reached the level.
        inside: further points between the last two.
        level: ().
        value_at: measures at one of them.
        in_log: of :func:`_grown_to`.
    """
    before, end = list(points[:2]), points[2]
    while inside:
        middle = len(inside) // 2
        point = torch.full_like(end[0], inside[middle].t), value_at(inside[middle])
        if bool(point[1] >= level):
            end, inside = point, inside[:middle]
        else:
            before, inside = [before[1], point], inside[middle + 1 :]
    three = [(t[None], value[None]) for t, value in (*before, end)]
    return _grown_to(three, level[None], in_log=in_log)[0]


class T1(Observer):
    """Observer of the time at which a member leaves the tangent space; ~ sqrt(h) alpha in the feature regime.

    * ``half_loss``: the train loss has fallen below half its initial value, tested after every step, as in the
      reference code. In lazy training this time is independent of alpha, and the member does not leave the tangent
      space.
    * ``kernel_drift``: ‖Theta_t - Theta_0‖/‖Theta_0‖ has reached ``drift_level``; needs :class:`KernelDrift`.
    * ``tangent_departure``: ‖F - F_lin‖/‖F‖ has reached ``departure_level``; needs :class:`TangentDeparture` with
      ``always``.

    The last two are tested when their observers measure, and interpolated between these times as powers of t. Within
    steps that are long beside t their observers measure too, by the integrator's interpolant.

    Args:
        definitions: one or more of the three definitions.
        drift_level: the level of ``kernel_drift``.
        departure_level: the level of ``tangent_departure``.

    Raises:
        ConfigError: a definition is unknown, a level is out of range, or (at the start of a run) an observer is
            missing.
    """

    looks_at_others = True

    reads_passages = True

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
        self._earlier: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``t1/DEFINITION``, which is NaN until the member has left the tangent space."""
        measured = [name for name in self.definitions if name == "half_loss" or module.trains_network]
        if observation.index == 0:
            self._t1, self._last, self._earlier = {}, {}, {}
        for name in measured:
            if name not in self._t1:
                self._t1[name] = torch.full_like(observation.state.t, torch.nan)
            self._t1[name] = self._t1[name].to(observation.state.t.device)
            if name == "half_loss":
                self._update_from_loss(module, observation)
            else:
                self._update_from_column(name, module, observation)
        return {f"t1/{name}": self._t1[name] for name in measured}

    def _update_from_loss(self, module: ObservableModule, observation: Observation) -> None:
        state, t1, trace = observation.state, self._t1["half_loss"], observation.trace
        if trace is not None and "half_loss" in self._last:
            rows = torch.arange(len(state.t), device=state.t.device) if observation.rows is None else observation.rows
            (t_0, loss_0), (t_1, loss_1) = ((t[rows], loss[rows]) for t, loss in self._two_before("half_loss", state.t))
            # Steps that end before an observation within a step, which comes first, have been seen.
            seen = trace.t < t_1
            t = torch.cat([t_0[None], t_1[None], torch.where(seen, t_1, trace.t)])
            loss = torch.cat([loss_0[None], loss_1[None], torch.where(seen, loss_1, trace.loss.double())])
            half = 0.5 * state.loss_start[rows].double()
            bend = torch.inf if observation.passages is None else 1.0
            found = first_crossing(t, loss, half, curved_beyond=bend)
            if observation.passages is not None:
                self._locate_half(module, observation.passages, rows, (t, loss, half), found)
            t1[rows] = torch.where(t1[rows].isnan(), found, t1[rows])
        # Copies, because the flow updates its state in place.
        self._keep("half_loss", state.t.clone(), state.loss.to(torch.float64, copy=True))

    def _locate_half(
        self,
        module: ObservableModule,
        passages: Passages,
        rows: Tensor,
        curve: tuple[Tensor, Tensor, Tensor],
        found: Tensor,
    ) -> None:
        """Writes the times (R,) at which the loss of members ``rows`` has halved within a long step to ``found``."""
        t, loss, half = curve
        for i in (self._t1["half_loss"][rows].isnan() & ~found.isnan()).nonzero().flatten().tolist():
            after = max(int((loss[:, i] <= half[i]).byte().argmax()), 2)
            points = [(t[k, i], -loss[k, i]) for k in (after - 2, after - 1, after)]
            row = rows[i : i + 1]

            def value_at(point: Point, row: Tensor = row) -> Tensor:
                return -cast("FlowingModule", module).loss_at(row, point.displacement[None])[0].double()

            inside = passages.between(int(row), float(points[1][0]), float(points[2][0]))
            found[i] = _bisected(points, inside, -half[i], value_at, in_log=False)

    def _update_from_column(self, name: str, module: ObservableModule, observation: Observation) -> None:
        t, value = observation.state.t, observation.columns[_COLUMNS[name]].double()
        points = [*self._two_before(name, t), (t, value)]
        level = torch.full_like(t, self._levels[name])
        found = _grown_to(points, level)
        new = self._t1[name].isnan() & ~found.isnan()
        if observation.passages is not None:
            for row in new.nonzero().flatten().tolist():
                known = [(times[row], values[row]) for times, values in points]
                inside = observation.passages.between(row, float(known[1][0]), float(known[2][0]))
                value_at = partial(self._value_at, name, module, row)
                found[row] = _bisected(known, inside, level[row], value_at, in_log=True)
        self._t1[name] = torch.where(new, found, self._t1[name])
        self._keep(name, t.clone(), value)

    def _value_at(self, name: str, module: ObservableModule, row: int, point: Point) -> Tensor:
        """() the quantity of a definition for one member at a point within a step."""
        displacement = point.displacement[None]
        rows = torch.tensor([row], device=displacement.device)
        for observer in module.trainer.callbacks:  # type: ignore[attr-defined]
            if name == "kernel_drift" and isinstance(observer, KernelDrift):
                return observer.drift_at(module, rows, displacement)[0].double()
            if name == "tangent_departure" and isinstance(observer, TangentDeparture) and observer.always:
                return observer.departure_at(module, rows, displacement)[0].double()
        raise AssertionError(f"the observer of {name} is missing, see check")

    def _two_before(self, name: str, t: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The last two times with their values, (E,) each; at first t = 0, where drift and departure are zero."""
        zero = (torch.zeros_like(t), torch.zeros_like(t))
        last = self._last.get(name, zero)
        return [(u.to(t.device), value.to(t.device)) for u, value in (self._earlier.get(name, last), last)]

    def _keep(self, name: str, t: Tensor, value: Tensor) -> None:
        """Notes values (E,) at times of their own, where they have been measured at a later time than before."""
        earlier, last = self._two_before(name, t)
        new = value.isfinite() & (t > last[0])
        if name not in self._last:
            new = value.isfinite()
            last = (torch.where(new, t, 0.0), torch.where(new, value, 0.0))
        self._earlier[name] = (torch.where(new, last[0], earlier[0]), torch.where(new, last[1], earlier[1]))
        self._last[name] = (torch.where(new, t, last[0]), torch.where(new, value, last[1]))

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
        if not self._t1:
            return {}
        kept = {"last": self._last, "earlier": self._earlier}
        points = {
            key: {name: {"t": t, "value": value} for name, (t, value) in each.items()} for key, each in kept.items()
        }
        return {"t1": self._t1, **points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        if state_dict:
            self._t1 = dict(state_dict["t1"])
            self._last, self._earlier = (
                {name: (held["t"], held["value"]) for name, held in state_dict.get(key, {}).items()}
                for key in ("last", "earlier")
            )
