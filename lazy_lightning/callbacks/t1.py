"""t1: the time at which a member has left the tangent space, by the reference's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lazy_lightning.observation import Observation, Observer

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule


def first_crossing(t: Tensor, values: Tensor, level: Tensor) -> Tensor:
    """When ``values`` first fall to ``level``, interpolated between steps; NaN if they do not.

    Linear in log t; linear in t on the step that starts at t = 0.

    Args:
        t: (K, E) increasing times.
        values: (K, E).
        level: (E,).

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
    """t1 by ``half_loss``: the train loss has fallen under half its start; ~ sqrt(h) alpha in the feature regime.

    Every step of a burst is looked at, not only its end.
    """

    def __init__(self) -> None:
        self._t1: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    def observe(self, module: FlowModule, observation: Observation) -> Mapping[str, Tensor]:
        """``t1/half_loss``; NaN until it has happened."""
        state = observation.state
        if self._t1 is None:
            self._t1 = torch.full_like(state.t, torch.nan)
        self._t1 = self._t1.to(state.t.device)
        if observation.trace is not None and self._last is not None:
            rows = slice(None) if observation.rows is None else observation.rows
            t_last, loss_last = (x.to(state.t.device)[rows] for x in self._last)
            t = torch.cat([t_last[None], observation.trace.t])
            loss = torch.cat([loss_last[None], observation.trace.loss.double()])
            found = first_crossing(t, loss, 0.5 * state.loss_start[rows].double())
            self._t1[rows] = torch.where(self._t1[rows].isnan(), found, self._t1[rows])
        self._last = (state.t.clone(), state.loss.to(torch.float64, copy=True))  # the flow goes on in place
        return {"t1/half_loss": self._t1}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: a resumed run finds the same t1."""
        if self._t1 is None or self._last is None:
            return {}
        return {"t1": self._t1, "t": self._last[0], "loss": self._last[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        if state_dict:
            self._t1, self._last = state_dict["t1"], (state_dict["t"], state_dict["loss"])
