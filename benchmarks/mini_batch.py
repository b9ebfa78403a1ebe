"""A step of mini-batch training: members in one batch, against a loop over plain networks; and what companions cost.

    python benchmarks/mini_batch.py [--out FILE.json] [--members 1 10]

The rival is what one writes by hand: for each member a torch module, a frozen copy for f(w0, x), its own optimizer.
Both take the same SGD steps with momentum on the same batch, in one process, in turn. ``loop_ratio`` is the rival's
time over ours. ``tflops`` counts two operations a multiply-add, in the network's forward and backward pass and in one
forward pass a member at w0 (seeds are not shared here); ``gemm_share`` is that over what a large matrix product of the
dtype reaches on this machine. A companion is timed with the network beside it: ``with_linearized`` and
``with_frozen_activations`` are the steps' times over the network's own.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timing import Rows, in_turn, machine, median_ratio, output_options, product_rate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lazy_lightning.denormals import flush_denormals
from lazy_lightning.modules.member_groups import optimizer_of
from lazy_lightning.nn import CNN, FC, VGG
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.companions import COMPANIONS, NETWORK, ComparisonModels
from lazy_lightning.objective.losses import build_loss

ALPHA, RATE, CLASSES, BATCH = 10.0, 1e-2, 10, 128
NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "FC, h = 100, L = 3": (functools.partial(FC, width=100, depth=3, activation="relu"), (784,)),
    "CNN, h = 16": (functools.partial(CNN, width=16, activation="relu"), (3, 32, 32)),
    "VGG-11, width 1/8": (functools.partial(VGG, depth=11, widening=0.125), (3, 32, 32)),
}


class Ours:
    """The step of MiniBatchModule, without a trainer."""

    def __init__(self, initial: InitialMembers, x: Tensor, y: Tensor, models: Sequence[str]) -> None:
        E, device = len(initial.w0), x.device
        w0 = initial.w0.to(device, x.dtype)
        buffers = {name: b.to(device) for name, b in initial.buffers.items()}
        centering = Centering(torch.full((E,), ALPHA, dtype=torch.float64, device=device), enabled=True)
        initial.network.template.to(device)
        self.side = ComparisonModels(initial.network, centering, w0, buffers, SharedStarts.of_weights(w0, buffers))
        self.rows = {name: [nn.Parameter(torch.zeros_like(row)) for row in w0] for name in models}
        build = functools.partial(torch.optim.SGD, lr=RATE, momentum=0.9)
        self.optimizer = optimizer_of(build, self.rows, {name: [RATE] * E for name in models})
        self.x, self.y, self.loss = x, y, build_loss("cross_entropy")

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        start = self.side.start(self.x)
        total = sum(
            self.loss.per_sample(self.side.outputs(name, torch.stack(rows), self.x, start), self.y).mean(-1).sum()
            for name, rows in self.rows.items()
        )
        (total / ALPHA**2).backward()  # type: ignore[union-attr, no-untyped-call]
        self.optimizer.step()


class Loop:
    """One network after the other."""

    def __init__(self, build: Callable[..., nn.Module], shape: tuple[int, ...], members: int, x: Tensor, y: Tensor):
        made = [build(input_shape=shape, num_outputs=CLASSES).to(x.device, x.dtype) for _ in range(members)]
        self.networks = [(net, copy.deepcopy(net).requires_grad_(False)) for net in made]
        self.optimizers = [torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9) for net in made]
        self.x, self.y = x, y

    def __call__(self) -> None:
        for (net, frozen), optimizer in zip(self.networks, self.optimizers, strict=True):
            optimizer.zero_grad()
            F = ALPHA * (net(self.x) - frozen(self.x))
            (nn.functional.cross_entropy(F, self.y) / ALPHA**2).backward()
            optimizer.step()


def flops(build: Callable[..., nn.Module], shape: tuple[int, ...], x: Tensor) -> float:
    """Of a forward, a backward, and a forward pass at w0, of one member."""
    net = build(input_shape=shape, num_outputs=CLASSES).to(x.device, x.dtype)
    with FlopCounterMode(display=False) as both:
        net(x).sum().backward()
    with FlopCounterMode(display=False) as start, torch.no_grad():
        net(x)
    return float(both.get_total_flops() + start.get_total_flops())


def compare(name: str, members: int, dtype: torch.dtype, device: torch.device, gemm: float) -> dict[str, Any]:
    """One row; ``gemm`` is the rate of large matrix products."""
    build, shape = NETWORKS[name]
    x = torch.randn(BATCH, *shape, device=device, dtype=dtype)
    y = torch.randint(CLASSES, (BATCH,), device=device)
    initial = InitialMembers(build, range(members), shape, CLASSES)
    alone = Ours(initial, x, y, [NETWORK])
    beside = [Ours(initial, x, y, [NETWORK, companion]) for companion in COMPANIONS]
    ours, loop, *companions = in_turn([alone, Loop(build, shape, members, x, y), *beside], device)
    step = statistics.median(ours)
    rate = members * flops(build, shape, x) / step
    return {
        "step_ms": round(1e3 * step, 3),
        "loop_ratio": round(1 / median_ratio(ours, loop), 3),
        "tflops": round(rate / 1e12, 4),
        "gemm_share": round(rate / gemm, 3),
        **{
            f"with_{companion}": round(1 / median_ratio(ours, times), 2)
            for companion, times in zip(COMPANIONS, companions, strict=True)
        },
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output_options(parser)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    given = parser.parse_args()
    flush_denormals()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = Rows(given, {**machine(device), "batch": BATCH}, ("network", "dtype", "members"))
    for name in given.dtypes:
        dtype = getattr(torch, name)
        gemm = product_rate(dtype, device, 4096 if device.type == "cuda" else 1536)
        for network in given.networks:
            for members in given.members:
                work = functools.partial(compare, network, members, dtype, device, gemm)
                rows.add({"network": network, "dtype": name, "members": members}, work)


if __name__ == "__main__":
    run()
