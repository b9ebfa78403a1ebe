"""J and J^T as maps: forward mode pushes a change of the weights to the outputs, reverse mode pulls one back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.func import vjp, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.directional_derivative import directional_derivative, has_one_sided_rules, is_missing_rule
from lazy_lightning.ntk.independence import check_batch
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_of, gradients_on
from lazy_lightning.objective.full_batch import chunks

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
        """The number of outputs c of a sample."""
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
            tangent = self._pull(part, cotangent[:, part])
            total = {name: total[name] + t if total else t for name, t in tangent.items()}
        return total

    def _pull(self, part: slice, cotangent: Tensor) -> Tangent:
        try:
            with gradients_on():
                backward = vjp(self._outputs(part), self._weights)[1]
                return cast(Tangent, backward(cotangent)[0])
        except (RuntimeError, ConfigError) as error:
            if not is_missing_rule(error):
                raise
        return self._pull_by_autograd(part, cotangent)

    def _pull_by_autograd(self, part: slice, cotangent: Tensor) -> Tangent:
        """For networks that differentiate inside of forward, or have sparse gradients: one member after the other."""
        rows = [self._pull_of_member(e, self.x[part], cotangent[e]) for e in range(self.model.members)]
        return {name: torch.stack([row[name] for row in rows]) for name in self.names}

    def _pull_of_member(self, member: int, x: Tensor, cotangent: Tensor) -> Tangent:
        model = self.model
        params = {name: p[member].detach().clone() for name, p in model.params.items()}
        weights = [params[name].requires_grad_() for name in self.names]
        buffers = {**model.shared_buffers, **{name: b[member] for name, b in model.member_buffers.items()}}
        with gradients_on():
            value = (model.call(params, buffers, x) * cotangent).sum()
            return dict(zip(self.names, gradients_of(value, weights), strict=True))

    @cached_property
    def _reverse(self) -> bool:
        return has_one_sided_rules(self.model.template)

    @property
    def _weights(self) -> Tangent:
        return {name: self.model.params[name] for name in self.names}

    def _outputs(self, part: slice) -> Callable[[Tangent], Tensor]:
        x = self.x[part]
        return lambda weights: replace(self.model, params={**self.model.params, **weights}).outputs(x)


def kernel_products(left: TangentMap, right: TangentMap, cotangents: Tensor, *, at_once: int | None = None) -> Tensor:
    """J (J'^T u) for many u, (k, E, n', c) to (k, E, n, c): some at once by ``vmap`` where it has a rule, else each."""

    def product(u: Tensor) -> Tensor:
        return left.push(right.pull(u))

    try:
        products: Tensor = vmap(product, chunk_size=at_once)(cotangents)
    except (RuntimeError, ConfigError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_missing_rule(error):
            raise
        products = torch.stack([product(u) for u in cotangents])
    return products
