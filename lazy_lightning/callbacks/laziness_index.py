"""The index kappa, which predicts before training whether a member will train lazily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.laziness import (
    Laziness,
    PowerMethod,
    jacobian_norm,
    laziness_index,
    second_derivative_norm,
    target_distance,
)
from lazy_lightning.objective.full_batch import drop_single_output
from lazy_lightning.objective.member_blocks import outputs_in_blocks

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class LazinessIndex(NetworkObserver):
    """Observer of kappa = ‖F - y‖ ‖D^2 F‖/‖D F‖^2, ‖D f‖ and ‖D^2 f‖ on training samples (arXiv:1812.07956).

    At w0, kappa is about 1/(sqrt(h) alpha), and small if training will be lazy; see
    :mod:`lazy_lightning.ntk.laziness`. It is defined for the square loss; for other losses, y are the labels as +-1 or
    one-hot vectors. By default all records contain the value at t = 0.

    Args:
        samples: number of training samples; the norms are those of an average over them.
        always: whether to measure at the present weights at every observation. Each measurement takes about a thousand
            evaluations of the samples.
        method: the tolerance and the limit of the power iterations for the norms.

    Raises:
        ConfigError: ``samples`` is less than 1.
    """

    column_names = (
        "laziness_index",
        "laziness/jacobian_norm",
        "laziness/second_derivative_norm",
        "laziness/target_distance",
    )

    def __init__(self, samples: int = 100, always: bool = False, method: PowerMethod | None = None) -> None:
        check_arguments(LazinessIndex, locals())
        if samples < 1:
            raise ConfigError(f"LazinessIndex needs samples >= 1, got {samples}")
        self.samples = samples
        self.always = always
        self.method = method or PowerMethod()
        self._columns: dict[str, Tensor] | None = None

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``laziness_index`` and ``laziness/`` with jacobian_norm, second_derivative_norm, target_distance."""
        if self._columns is None or self.always or observation.index == 0:
            found = self._measure(module, module.w.detach() if self.always else module.w0)
            self._columns = {
                "laziness_index": found.kappa,
                "laziness/jacobian_norm": found.jacobian_norm,
                "laziness/second_derivative_norm": found.second_derivative_norm,
                "laziness/target_distance": found.target_distance,
            }
        device = observation.state.t.device
        return {name: column.to(device) for name, column in self._columns.items()}

    def _measure(self, module: ObservableModule, w: Tensor) -> Laziness:
        x, y, _ = module.resident(Split(*(part[: self.samples] for part in module.train_split)))
        F = module.centering(module.raw_outputs(w, x), module.initial_outputs(x))
        distance = target_distance(drop_single_output(F), y)
        jacobian, second = self._norms(module, w, x)
        kappa = laziness_index(distance, jacobian, second, module.centering.alpha)
        return Laziness(kappa, jacobian, second, distance)

    def _norms(self, module: ObservableModule, w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ‖D f‖ and ‖D^2 f‖, (E,); at w0 they are computed once for members with the same initial weights."""
        every = torch.arange(len(w), device=w.device)
        starts = SharedStarts.distinct(every) if self.always else module.shared_starts
        rows, buffers = starts.first, starts.rows(module.member_buffers())

        at_once = module.members_at_once(x)

        def outputs(weights: Tensor, part: Tensor) -> Tensor:
            return outputs_in_blocks(module.network, weights, part, buffers, at_once)

        method, size = self.method, module.chunk_size
        jacobian = jacobian_norm(outputs, w[rows], x, method=method, chunk_size=size)
        second = second_derivative_norm(outputs, w[rows], x, method=method, chunk_size=size)
        return jacobian[starts.own], second[starts.own]

    def state_dict(self) -> dict[str, Any]:
        """Returns the columns for the checkpoint, so that a resumed run keeps the values at t = 0."""
        return {} if self._columns is None else dict(self._columns)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the columns from a checkpoint."""
        if state_dict:
            self._columns = dict(state_dict)
