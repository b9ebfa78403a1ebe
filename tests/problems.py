"""Small flows to be tested: a network, a handful of samples, a loss, and the MomentumFlow that follows them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from lazy_lightning.flow import Evaluation, MomentumFlow
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import Loss, build_loss
from lazy_lightning.seeding import generator


@dataclass(frozen=True)
class Problem:
    """Members at w0 and the objective that they descend."""

    objective: Objective
    w0: Tensor

    def member(self, rows: Sequence[int]) -> Problem:
        """The same with some of the members."""
        chosen = torch.tensor(list(rows))
        return Problem(self.objective.select(chosen), self.w0[chosen])

    def flow(self, **options) -> tuple[MomentumFlow, Callable[[], Evaluation]]:
        """A flow from w0 and its closure, which heeds the members left out."""
        w = nn.Parameter(self.w0.clone())
        flow = MomentumFlow([w], members=len(w), **options)
        return flow, lambda: self.objective.select(flow.active).backward(w)

    def run(self, *, bursts: int = 1, **options) -> MomentumFlow:
        """The flow after ``bursts`` calls of step."""
        flow, closure = self.flow(**options)
        for _ in range(bursts):
            flow.step(closure)
        return flow

    def to_end(self, *, steps: int = 20, **options) -> MomentumFlow:
        """The flow by bursts of ``steps`` until all members have stopped."""
        flow, closure = self.flow(steps=steps, **options)
        while not flow.started or flow.flow_state.running.any():
            flow.step(closure)
        return flow

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """grad L of the one member at w0 + w, in numpy, for scipy."""
        point = (self.w0 + torch.from_numpy(w).view(1, -1)).requires_grad_(True)
        self.objective.backward(point)
        return point.grad.numpy().ravel()


def problem(
    alphas: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0,),
    loss: str | Loss = "softhinge(5)",
    *,
    samples: int = 6,
    inputs: int = 4,
    dtype: torch.dtype = torch.float64,
    y: Tensor | None = None,
    centering: bool = True,
    chunk_size: int | None = None,
    margins: bool = True,
    device: str = "cpu",
    **network,
) -> Problem:
    """Every alpha with every seed; labels +-1 unless ``y`` is given."""
    draw = generator("tests", 0)
    x = torch.randn(samples, inputs, dtype=torch.float64, generator=draw)
    if y is None:
        y = torch.randn(samples, dtype=torch.float64, generator=draw).sign()
    options = {"width": 5, "depth": 2, "activation": "softplus(5)", **network}
    pairs = [(alpha, seed) for alpha in alphas for seed in seeds]
    outputs = options.pop("num_outputs", 1)
    members = InitialMembers(functools.partial(FC, **options), [seed for _, seed in pairs], (inputs,), outputs)
    w0, x = members.w0.to(device, dtype), x.to(device, dtype)
    scales = Centering(
        torch.tensor([alpha for alpha, _ in pairs], dtype=torch.float64, device=device), enabled=centering
    )
    f0 = scales.base(lambda w: raw_outputs(members.network, w, x, {}), w0)
    y = (y.to(dtype) if y.is_floating_point() else y).to(device)
    return Problem(
        Objective(members.network, build_loss(loss), scales, x, y, f0, {}, chunk_size, reports_margins=margins), w0
    )


def copied(base: Problem, **changes) -> Problem:
    """``base`` with some fields of its objective replaced."""
    return Problem(replace(base.objective, **changes), base.w0)
