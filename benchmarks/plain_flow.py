"""The published rule of arXiv:1906.08034 as one would write it for one torch module: deep copies, and a step undone.

The rival of ``benchmarks/integrators.py``, and the truth of ``tests/flow/test_published_rule.py``. Written from the
paper's description: a step is accepted if the relative change of the gradient is under ``max_dgrad`` and no output
has moved by ``max_dout`` or more; the next one is 1.1 times longer if both are under half of their bounds; otherwise
all is restored and dt divided by ten.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Run(NamedTuple):
    """One run of the plain rule."""

    times: list[float]
    """t after each accepted step."""
    tried: int
    outputs: Tensor
    """(n,) F at the end."""


def plain_flow(
    model: nn.Module,
    x: Tensor,
    penalty: Callable[[Tensor], Tensor],
    alpha: float,
    steps: int,
    *,
    tau: float = 0.0,
    dt: float = 1.0,
    max_dgrad: float = 1e-4,
    max_dout: float = 0.1,
) -> Run:
    """Trains alpha (f - f0) by full-batch momentum flow for a number of tried steps.

    Args:
        model: f, with one output; changed in place.
        x: (n, ...) all training samples.
        penalty: ell of the outputs F (n,), one number a sample.
        alpha: the scale; the loss is the mean of ell over alpha^2.
        steps: tried steps, accepted or not.
        tau: memory of the momentum; 0 for gradient flow.
        dt: first step size to try.
        max_dgrad: bound of the relative change of the gradient.
        max_dout: bound of the change of an output.
    """
    start = copy.deepcopy(model)
    with torch.no_grad():
        f0 = start(x).flatten()
    velocity = [torch.zeros_like(p) for p in model.parameters()]

    def evaluate(net: nn.Module) -> tuple[Tensor, list[Tensor]]:
        outputs = alpha * (net(x).flatten() - f0)
        loss = penalty(outputs).mean() / alpha**2
        return outputs.detach(), list(torch.autograd.grad(loss, list(net.parameters())))

    outputs, gradient = evaluate(model)
    t, times = 0.0, []
    for _ in range(steps):
        kept_model, kept_velocity = copy.deepcopy(model.state_dict()), copy.deepcopy(velocity)
        keeps = math.exp(-dt / tau) if tau > 0 else 0.0
        velocity = [keeps * v - (1 - keeps) * g for v, g in zip(velocity, gradient, strict=True)]
        with torch.no_grad():
            for p, v in zip(model.parameters(), velocity, strict=True):
                p.add_(dt * v)
        new_outputs, new_gradient = evaluate(model)
        dgrad = relative_change(gradient, new_gradient)
        dout = float((new_outputs - outputs).abs().max())
        if dgrad < max_dgrad and dout < max_dout:
            t += dt
            times.append(t)
            outputs, gradient = new_outputs, new_gradient
            if dgrad < max_dgrad / 2 and dout < max_dout / 2:
                dt *= 1.1
        else:
            model.load_state_dict(kept_model)
            velocity = kept_velocity
            dt /= 10
    return Run(times, steps, outputs)


def relative_change(old: list[Tensor], new: list[Tensor]) -> float:
    """‖g_new - g_old‖^2 / (‖g_new‖ ‖g_old‖) over all parameters."""
    a, b = (torch.cat([g.flatten() for g in each]) for each in (old, new))
    return float((b - a).square().sum() / (a.norm() * b.norm()))
