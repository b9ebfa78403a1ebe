"""J and J^T as maps: forward mode pushes a change of the weights to the outputs, reverse mode pulls one back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.func import vjp

from lazy_lightning.directional_derivative import directional_derivative, has_one_sided_rules
from lazy_lightning.ntk.independence import check_batch
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_on
from lazy_lightning.objective import chunks

Tangent = dict[str, Tensor]
"""A change of the weights by parameter name, (E, *shape) each."""


@dataclass(frozen=True)
class TangentMap:
    """J = d f / d w on some samples for some parameters of E members; no Jacobian is formed."""

    model: TangentModel
    x: Tensor
    names: tuple[str, ...]
    chunk_size: int | None = None

    @cached_property
    def outputs_per_sample(self) -> int:
        """c"""
        return self.model.outputs_per_sample(self.x)

    def check_batches(self) -> None:
        """Compares samples of batches of each size that occurs with the same samples alone.

        Raises:
            ConfigError: if their outputs differ.
        """
        near = self.model.first_member().nearby()
        batches = {len(self.x[part]): part for part in chunks(len(self.x), self.chunk_size)}
        for part in batches.values():
            check_batch(near, self.x[part])

    def push(self, tangent: Tangent) -> Tensor:
        """J dw, (E, n, c)."""
        with gradients_on():
            parts = [
                cast(
                    Tensor,
                    directional_derivative(self._outputs(part), self._weights, tangent, reverse=self._reverse)[1],
                )
                for part in chunks(len(self.x), self.chunk_size)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _push(self, part: slice, tangent: Tangent) -> Tensor:
        derivative = directional_derivative(self._outputs(part), self._weights, tangent, reverse=self._reverse)[1]
        return cast(Tensor, derivative)

    def pull(self, cotangent: Tensor) -> Tangent:
        """J^T u for u (E, n, c)."""
        total: Tangent = {}
        for part in chunks(len(self.x), self.chunk_size):
            with gradients_on():
                backward = vjp(self._outputs(part), self._weights)[1]
                (tangent,) = backward(cotangent[:, part])
            total = {name: total[name] + t if total else t for name, t in tangent.items()}
        return total

    @cached_property
    def _reverse(self) -> bool:
        return has_one_sided_rules(self.model.template)

    @property
    def _weights(self) -> Tangent:
        return {name: self.model.params[name] for name in self.names}

    def _outputs(self, part: slice) -> Callable[[Tangent], Tensor]:
        x = self.x[part]
        return lambda weights: replace(self.model, params={**self.model.params, **weights}).outputs(x)
