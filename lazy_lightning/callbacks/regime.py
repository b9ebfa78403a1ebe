"""In which regime a member has trained: how far it has left its tangent space."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.linearize import tangent_departure, tangent_outputs
from lazy_lightning.objective import chunks, drop_single_output
from lazy_lightning.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.flow.state import FlowState
    from lazy_lightning.modules.flow_module import FlowModule
    from lazy_lightning.training_state import TrainingState

LAZY_BELOW = 0.1
FEATURE_ABOVE = 0.5
TRAINED_BELOW = 0.5
"""The share of its initial value under which the training loss must have fallen before lazy or crossover is told."""


class Regime(StrEnum):
    """What the tangent departure at the end of training says."""

    LAZY = "lazy"
    CROSSOVER = "crossover"
    FEATURE = "feature"
    UNDECIDED = "undecided"
    """Close to its linearisation, but the loss has not fallen enough to tell whether it stays there."""
    UNKNOWN = "unknown"
    KERNEL = "kernel"
    """Not measured: the model was a frozen kernel."""


def regime(departure: float, loss_share: float, ended: bool = False) -> Regime:
    """Lazy: the linearisation at w0 accounts for all but a tenth of F. Feature: for less than half.

    Every network is close to its linearisation before it has learnt anything, so lazy and crossover are told only of
    training that has ended by itself, or whose loss has fallen to :data:`TRAINED_BELOW` of its start. A departure that
    is large already is feature learning at any loss.

    Args:
        departure: ‖F - F_lin‖/‖F‖.
        loss_share: the training loss over its value at w0.
        ended: whether training has ended by itself: margins met, loss reached, or stationary.

    >>> regime(0.003, 0.01), regime(0.003, 0.9), regime(0.9, 0.9)
    (<Regime.LAZY: 'lazy'>, <Regime.UNDECIDED: 'undecided'>, <Regime.FEATURE: 'feature'>)
    """
    if departure != departure:
        return Regime.UNKNOWN
    if departure > FEATURE_ABOVE:
        return Regime.FEATURE
    if not (ended or loss_share <= TRAINED_BELOW):
        return Regime.UNDECIDED
    return Regime.LAZY if departure < LAZY_BELOW else Regime.CROSSOVER


class TangentDeparture(NetworkObserver):
    """‖F - alpha J(w0)(w - w0)‖ / ‖F‖ on test samples, when a run ends: the definition of lazy, in one number.

    Args:
        samples: how many test samples to use.
        always: measure at every observation; one forward-mode pass over the samples each.
    """

    column_names = ("tangent_departure",)

    def __init__(self, samples: int = 500, always: bool = False) -> None:
        if samples < 1:
            raise ConfigError(f"TangentDeparture needs samples >= 1, got {samples}")
        self.samples = samples
        self.always = always

    @torch.no_grad()
    def observe(self, module: FlowModule, observation: Observation) -> Mapping[str, Tensor]:
        """``tangent_departure``; NaN before the end unless asked for always."""
        state = observation.state
        measured = observation.final or self.always
        if not measured and observation.index > 0:
            return {"tangent_departure": torch.full_like(state.t, torch.nan)}
        departure = self._measure(module, state, self.samples if measured else 1)
        if measured:
            return {"tangent_departure": departure}
        return {"tangent_departure": torch.full_like(state.t, torch.nan)}  # at w0 one sample shows whether it can be

    def _measure(self, module: FlowModule, state: FlowState | TrainingState, samples: int) -> Tensor:
        """(E,) on the first test samples."""
        x = module.test_split.x[:samples]
        buffers, w0 = module.member_buffers(), module.w0

        def tangent(part: slice) -> Tensor:
            return tangent_outputs(lambda w: module.network(w, x[part], buffers), w0, state.displacement)

        linear = torch.cat([tangent(part) for part in chunks(len(x), module.chunk_size)], dim=1)
        if not module.centering.enabled:
            linear = linear + module.raw_outputs(w0, x)  # F starts at alpha f0, and so does what it is compared with
        scaled = drop_single_output(module.centering(linear, torch.zeros_like(linear)))
        return tangent_departure(module.centered_outputs(x), scaled)
