"""The Jacobian of a network on some samples, layer by layer, as factors that are computed when they are first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.ntk.capture import Passes, run_forward, run_passes
from lazy_lightning.ntk.factors import Contraction, Dense, Factors, concatenated
from lazy_lightning.ntk.independence import check_batch, looked_at, require_same
from lazy_lightning.ntk.jacobian import jacobian_rows
from lazy_lightning.ntk.kernel_plan import Plan, layer_factors
from lazy_lightning.ntk.tangent_model import TangentModel

LayerFactors = dict[str, Factors]


@dataclass(frozen=True)
class Tangents:
    """Samples, and what takes their Jacobian apart."""

    model: TangentModel
    plan: Plan
    x: Tensor
    contraction: Contraction

    def __len__(self) -> int:
        return len(self.x)

    def factors(self, samples: slice) -> LayerFactors:
        """The factors by layer for some samples: one forward and c backward passes, Jacobians without a rule."""
        x = self.x[samples]
        made: LayerFactors = {}
        if self.plan.structured:
            passes = run_passes(self.model, self.plan.calls, x)
            self._check_batch(passes, x)
            for name in self.plan.structured:
                outer = layer_factors(self.model, name, self.plan.calls, passes)
                made[name] = outer.cheapest(self.contraction)
        if self.plan.jacobian:
            names = [name for own in self.plan.jacobian.values() for name in own]
            rows = jacobian_rows(self.model, names, x, mapped=self.plan.mapped)
            sizes = [self._weights(own) for own in self.plan.jacobian.values()]
            made |= zip(self.plan.jacobian, map(Dense, torch.split(rows, sizes, dim=-1)), strict=True)
        return made

    def _check_batch(self, passes: Passes, x: Tensor) -> None:
        """Compares some samples of a batch with the same alone; once for a size, since a plan holds for any numbers."""
        if len(x) in self.plan.sizes:
            return
        for i in looked_at(len(x)):
            _, *alone = run_forward(self.model, self.plan.calls, x[i : i + 1])
            pairs = zip(passes.inputs, alone, strict=True)
            require_same([(whole[:, i : i + 1], own) for whole, own in pairs], self.model)
        # Outputs at the present weights may be nothing but rounding: those of a symmetric start cancel.
        check_batch(self.model.first_member().nearby(), x)
        self.plan.sizes.add(len(x))

    def _weights(self, names: Sequence[str]) -> int:
        return sum(self.model.params[name][0].numel() for name in names)

    def factors_in_parts(self, samples: slice, size: int) -> LayerFactors:
        """The same with ``size`` samples at a time through the network."""
        start, stop, _ = samples.indices(len(self.x))
        parts = [self.factors(slice(i, min(i + size, stop))) for i in range(start, stop, size)]
        return {name: concatenated([part[name] for part in parts]) for name in parts[0]}

    def bytes_per_sample(self) -> int:
        """Memory of a sample's factors, found out from one."""
        if not len(self.x):
            return 0
        with torch.no_grad():
            return sum(held.nbytes for held in self.factors(slice(0, 1)).values())


def part_of(factors: LayerFactors, samples: slice) -> LayerFactors:
    """Views of some of the samples."""
    return {name: held[samples] for name, held in factors.items()}
