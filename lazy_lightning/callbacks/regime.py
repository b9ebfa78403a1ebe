"""Distance of a member's function from its linearisation, which defines the regime of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.linearize import tangent_departure, tangent_outputs
from lazy_lightning.objective.full_batch import chunks, drop_single_output

if TYPE_CHECKING:
    from lazy_lightning.flow.state import FlowState
    from lazy_lightning.modules.observable_module import ObservableModule
    from lazy_lightning.modules.training_state import TrainingState


class TangentDeparture(NetworkObserver):
    """Observer of ‖F - alpha J(w0)(w - w0)‖ / ‖F‖ on test samples at the end of a run, which is small if lazy.

    Args:
        samples: number of test samples.
        always: whether to measure at every observation, which takes one forward-mode pass over the samples each.
    """

    column_names = ("tangent_departure",)

    needs_shared_inputs = False

    def __init__(self, samples: int = 500, always: bool = False) -> None:
        if samples < 1:
            raise ConfigError(f"TangentDeparture needs samples >= 1, got {samples}")
        self.samples = samples
        self.always = always

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``tangent_departure``, which is NaN before the end unless ``always`` is set."""
        state = observation.state
        measured = observation.final or self.always
        if not measured and observation.index > 0:
            return {"tangent_departure": torch.full_like(state.t, torch.nan)}
        departure = self._measure(module, state, self.samples if measured else 1)
        if measured:
            return {"tangent_departure": departure}
        # At w0 one sample was measured, to find out whether the network supports it.
        return {"tangent_departure": torch.full_like(state.t, torch.nan)}

    def _measure(self, module: ObservableModule, state: FlowState | TrainingState, samples: int) -> Tensor:
        """Returns the departure (E,) on the first test samples."""
        x = module.test_split.x[:samples]
        buffers, w0 = module.member_buffers(), module.w0

        def tangent(part: slice) -> Tensor:
            return tangent_outputs(lambda w: module.network(w, x[part], buffers), w0, state.displacement)

        linear = torch.cat([tangent(part) for part in chunks(len(x), module.chunk_size)], dim=1)
        scaled = drop_single_output(module.centering.from_change(linear, lambda: module.raw_outputs(w0, x)))
        return tangent_departure(module.centered_outputs(x), scaled)
