"""In which regime a member has trained: how far it has left its tangent space."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.linearize import tangent_departure, tangent_outputs
from lazy_lightning.objective import chunks, drop_single_output
from lazy_lightning.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule

LAZY_BELOW = 0.1
FEATURE_ABOVE = 0.5


class Regime(StrEnum):
    """What the tangent departure at the end of training says."""

    LAZY = "lazy"
    CROSSOVER = "crossover"
    FEATURE = "feature"
    UNKNOWN = "unknown"
    KERNEL = "kernel"
    """Not measured: the model was a frozen kernel."""


def regime(departure: float) -> Regime:
    """Lazy: the linearisation at w0 accounts for all but a tenth of F. Feature: for less than half.

    >>> regime(0.003), regime(0.9)
    (<Regime.LAZY: 'lazy'>, <Regime.FEATURE: 'feature'>)
    """
    if departure != departure:
        return Regime.UNKNOWN
    if departure < LAZY_BELOW:
        return Regime.LAZY
    return Regime.FEATURE if departure > FEATURE_ABOVE else Regime.CROSSOVER


class TangentDeparture(NetworkObserver):
    """‖F - alpha J(w0)(w - w0)‖ / ‖F‖ on test samples, when a run ends: the definition of lazy, in one number.

    Args:
        samples: how many test samples to use.
        always: measure at every observation; one forward-mode pass over the samples each.
    """

    def __init__(self, samples: int = 500, always: bool = False) -> None:
        self.samples = samples
        self.always = always

    @torch.no_grad()
    def observe(self, module: FlowModule, observation: Observation) -> Mapping[str, Tensor]:
        """``tangent_departure``; NaN before the end unless asked for always."""
        state = observation.state
        if not (observation.final or self.always):
            return {"tangent_departure": torch.full_like(state.t, torch.nan)}
        x = module.test_split.x[: self.samples]
        buffers, w0 = module.member_buffers(), module.w0

        def tangent(part: slice) -> Tensor:
            return tangent_outputs(lambda w: module.network(w, x[part], buffers), w0, state.displacement)

        linear = torch.cat([tangent(part) for part in chunks(len(x), module.chunk_size)], dim=1)
        if not module.centering.enabled:
            linear = linear + module.raw_outputs(w0, x)  # F starts at alpha f0, and so does what it is compared with
        scaled = drop_single_output(module.centering(linear, torch.zeros_like(linear)))
        return {"tangent_departure": tangent_departure(module.centered_outputs(x), scaled)}
