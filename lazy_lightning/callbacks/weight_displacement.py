"""Distance of the weights from their initial values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.modules.observation import NetworkObserver, Observation

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def relative_displacement(displacement: Tensor, origin: Tensor) -> Tensor:
    """Returns ‖w - w0‖ / ‖w0‖ of each member, (E,), from (E, N) and (E, N); ~ 1/alpha if lazy (arXiv:1906.08034).

    >>> relative_displacement(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]]))
    tensor([0.5000])
    """
    moved: Tensor = torch.linalg.vector_norm(displacement, dim=1)
    size: Tensor = torch.linalg.vector_norm(origin, dim=1)
    return moved / size


class WeightDisplacement(NetworkObserver):
    """Observer of ‖w - w0‖/‖w0‖, total and by layer, and of the largest and mean |dW_ij| by layer.

    In lazy training |dW_ij| ~ 1/(alpha h) in the hidden layers and ~ 1/(alpha sqrt(h)) in the first and last layer,
    while ‖w - w0‖ ~ 1/alpha, so sqrt(h) ‖w - w0‖/‖w0‖ ~ 1/(sqrt(h) alpha) (arXiv:1906.08034).

    Args:
        layers: whether to also measure each layer.
    """

    column_names = ("displacement/total",)

    needs_shared_inputs = False

    def __init__(self, layers: bool = True) -> None:
        self.layers = layers

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``displacement/total``, ``displacement/LAYER``, ``dw_max/LAYER`` and ``dw_mean/LAYER``."""
        state = observation.state
        columns = {"displacement/total": relative_displacement(state.displacement, state.origin)}
        if self.layers:
            for layer, part in module.network.layer_slices().items():
                moved = state.displacement[:, part]
                size = moved.abs()
                columns[f"displacement/{layer}"] = relative_displacement(moved, state.origin[:, part])
                columns[f"dw_max/{layer}"] = size.amax(dim=1)
                columns[f"dw_mean/{layer}"] = size.mean(dim=1)
        return columns
