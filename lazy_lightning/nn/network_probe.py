"""What a network computes near its initial weights, stored so that another network can be compared with it.

Names and shapes of weights do not tell two networks apart that differ in an activation or in a frozen constant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from lazy_lightning.nn.members import MemberNetwork, Named

_STEP = 0.1
"""Of the root mean square of w0: how far the probed weights are from w0, where a layer may be zero and hide others."""
_TOLERANCE = 1e-4
"""Relative to the largest output; rounding stays below it even where a network computes in float32."""


@dataclass(frozen=True)
class NetworkProbe:
    """The outputs of one network, and the size of the outputs of its layers, on a few inputs at weights near w0."""

    x: Tensor
    """(n, *input_shape) float64."""
    outputs: Tensor
    """(n, c) f(w, x), float64."""
    layers: Mapping[str, tuple[float, float]]
    """Mean and root mean square of what each layer puts out, in the order of the layers."""

    @classmethod
    def of(cls, network: MemberNetwork, w0: Tensor, buffers: Named, x: Tensor) -> Self:
        """Evaluates a network.

        Args:
            network: in float64.
            w0: (1, N) float64.
            buffers: (1, *shape) each.
            x: (n, *input_shape) float64.
        """
        w = w0 + _STEP * w0.square().mean().sqrt() * torch.arange(1.0, w0.shape[1] + 1, dtype=w0.dtype).sin()
        with torch.no_grad():
            outputs = network(w, x, buffers)[0]
            layers = {name: _moments(tensor) for name, tensor in network.preactivations(w, x, buffers).items()}
        return cls(x, outputs.double(), layers)

    def as_content(self) -> dict[str, Any]:
        """Returns plain values and tensors, for a checkpoint."""
        layers = {name: list(moments) for name, moments in self.layers.items()}
        return {"x": self.x.clone(), "outputs": self.outputs.clone(), "layers": layers}

    def disagreement(self, other: NetworkProbe, drawn: Collection[str]) -> str | None:
        """In what another network on the same inputs differs; None if it computes the same.

        Args:
            other: of the other network.
            drawn: the layers whose weights differ; these and all later layers, and the outputs, are left out.
        """
        for name, moments in self.layers.items():
            if name in drawn:
                return None
            if name in other.layers and not _agree(_tensor(moments), _tensor(other.layers[name])):
                return f"what the layer {name} puts out differs"
        return "its outputs differ" if not drawn and not _agree(self.outputs, other.outputs) else None


def _moments(tensor: Tensor) -> tuple[float, float]:
    values = tensor.double()
    return float(values.mean()), float(values.square().mean().sqrt())


def _tensor(moments: tuple[float, float]) -> Tensor:
    return torch.tensor(moments, dtype=torch.float64)


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    size = float(one.abs().nan_to_num().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * size, equal_nan=True)
