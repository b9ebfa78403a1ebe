"""Distance of a member's function from its linearisation, which defines the regime of training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.linearize import tangent_departure, tangent_outputs
from lazy_lightning.nn.member_samples import select_members
from lazy_lightning.objective.full_batch import chunks, drop_single_output, raw_outputs
from lazy_lightning.objective.member_blocks import outputs_in_blocks

if TYPE_CHECKING:
    from lazy_lightning.flow.state import FlowState
    from lazy_lightning.modules.observable_module import ObservableModule
    from lazy_lightning.modules.training_state import TrainingState


class TangentDeparture(NetworkObserver):
    """Observer of ‖F - alpha J(w0)(w - w0)‖ / ‖F‖ on test samples at the end of a run, which is small if lazy.

    Members that took no part in the last burst keep their value.

    Args:
        samples: number of test samples.
        always: whether to measure at every observation, which takes one forward-mode pass over the samples each.
    """

    column_names = ("tangent_departure",)

    needs_shared_inputs = False

    def __init__(self, samples: int = 500, always: bool = False) -> None:
        check_arguments(TangentDeparture, locals())
        if samples < 1:
            raise ConfigError(f"TangentDeparture needs samples >= 1, got {samples}")
        self.samples = samples
        self.always = always
        self._departure: Tensor | None = None

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``tangent_departure``, which is NaN before the end unless ``always`` is set."""
        state = observation.state
        measured = observation.final or self.always
        if not measured and observation.index > 0:
            return {"tangent_departure": torch.full_like(state.t, torch.nan)}
        if not measured:  # at w0 one sample is measured, to find out whether the network supports it
            self._measure(module, state, 1, None)
            return {"tangent_departure": torch.full_like(state.t, torch.nan)}
        known = None if observation.index == 0 or not self.always else self._departure
        rows = None if known is None else observation.rows
        departure = self._measure(module, state, self.samples, rows)
        if known is not None and rows is not None:
            departure = known.to(departure.device).index_copy(0, rows, departure)
        self._departure = departure
        return {"tangent_departure": departure}

    def _measure(
        self, module: ObservableModule, state: FlowState | TrainingState, samples: int, rows: Tensor | None
    ) -> Tensor:
        """Returns the departure on the first test samples of the members ``rows`` (R,), or of all (E,) if None."""
        chosen = torch.arange(len(state.t), device=state.t.device) if rows is None else rows
        return self._departure_of(module, chosen, state.displacement[chosen], module.test_outputs[chosen, :samples])

    @torch.no_grad()
    def departure_at(self, module: ObservableModule, rows: Tensor, displacement: Tensor) -> Tensor:
        """(R,) the departure of the members ``rows`` (R,) at other weights, w0 + dw with dw (R, N)."""
        outputs = module.outputs_at(rows, displacement, module.test_split.x[: self.samples])
        return self._departure_of(module, rows, displacement, outputs)

    def _departure_of(self, module: ObservableModule, rows: Tensor, displacement: Tensor, outputs: Tensor) -> Tensor:
        """(R,) of members with dw (R, N) and F (R, n, ...) on the first n test samples."""
        x = select_members(module.test_split.x[: outputs.shape[1]], rows)
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        w0 = module.w0[rows]

        size = module.members_at_once(x)

        def tangent(part: slice) -> Tensor:
            return tangent_outputs(
                lambda w: outputs_in_blocks(module.network, w, x[part], buffers, size), w0, displacement
            )

        linear = torch.cat([tangent(part) for part in chunks(len(x), module.chunk_size)], dim=1)
        start = partial(raw_outputs, module.network, w0, x, buffers, module.chunk_size, size)
        scaled = drop_single_output(module.centering.select(rows).from_change(linear, start))
        return tangent_departure(outputs, scaled)

    @property
    def state_key(self) -> str:
        """The key of the state in checkpoints, which differs between observers of different settings."""
        return self._generate_state_key(samples=self.samples, always=self.always)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the last measurement for the checkpoint, so that a resumed run keeps that of stopped members."""
        return {} if self._departure is None else {"departure": self._departure}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Restores the last measurement from a checkpoint."""
        self._departure = state_dict.get("departure")
