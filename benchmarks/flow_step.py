"""One tried step of the flow against one bare forward and backward of the same batched network.

    python benchmarks/flow_step.py [--device cuda] [--out FILE.json]

Bare: FC, L = 3, softplus(5), softhinge(20) of alpha (f - f0), every layer's (E, ...) weights a leaf, ``backward()``.
Ours: everything a step needs beside: the trial weights, the gradient's change, accept or reject, clocks, events.
Both in one process, in turn; the ratio is the median over rounds. Goal: at most 1.15. ``limit_share`` is the time that
the operations and 17 moved numbers a weight would take at the machine's rates, over that of the step.
On a CPU where members are evaluated in blocks of ``block``, also a step that evaluates all at once (``whole``). With
several threads also one evaluation by torch's threads, against as many Python threads of one torch thread, each with a
share of the members: ``members_over_threads`` is the time of the first over that of the second.
On CUDA both also as one recorded
graph each (``step_graph``, ``bare_graph``): the launches of an eager step take longer than its arithmetic when the
network is small. ``gemm_share`` is the step's rate of operations over that of a large matrix product of the dtype.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from timing import Rows, bandwidth, in_turn, machine, median_ratio, output_options, product_rate
from torch import Tensor

from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import Event, MarginsMet, MomentumFlow
from lazy_lightning.flow.cuda_graph import RecordedStep
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.step import try_step
from lazy_lightning.nn import FC, MemberNetwork
from lazy_lightning.ntk import ObjectiveClosure
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, drop_single_output, raw_outputs
from lazy_lightning.objective.losses import SoftHinge
from lazy_lightning.objective.member_blocks import block_size

INPUTS, SAMPLES, DEPTH = 64, 1000, 3


def make(
    width: int,
    members: int,
    dtype: torch.dtype,
    device: torch.device,
    samples: int = SAMPLES,
    depth: int = DEPTH,
    alpha: float = 1.0,
    events: Sequence[Event] = (MarginsMet(),),
    blocks: bool = True,
    **options: Any,
) -> tuple[MomentumFlow, Objective]:
    """A flow some steps into its run, and what it follows, by ``blocks`` of members as in a fit or all at once.

    Further options are those of the flow.
    """
    generator = torch.Generator().manual_seed(0)
    network = MemberNetwork(FC(width, depth, input_shape=INPUTS).to(device, dtype))
    w0 = torch.randn(members, network.weights, generator=generator, dtype=torch.float64).to(device, dtype)
    x = torch.randn(samples, INPUTS, generator=generator, dtype=torch.float64)
    x = (x * math.sqrt(INPUTS) / x.norm(dim=1, keepdim=True)).to(device, dtype)
    y = (x[:, 0] > 0).to(dtype) * 2 - 1
    centering = Centering(torch.full((members,), alpha, dtype=torch.float64, device=device))
    size = block_size(network, w0, x, {}) if blocks else None
    f0 = raw_outputs(network, w0, x, {})
    objective = Objective(network, SoftHinge(20), centering, x, y, f0, {}, block_size=size)
    weights = torch.nn.Parameter(w0.clone())
    flow = MomentumFlow([weights], members=members, events=events, dt=1e-3, origin=w0, **options)
    flow.steps = 5
    flow.step(ObjectiveClosure(weights, objective, flow))
    return flow, objective


def rivals(
    width: int, members: int, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Callable[[], None]], Objective]:
    """Ours and the bare one, and what ours follows."""
    ours, objective = tried_step(width, members, dtype, device)
    w0 = torch.randn(members, objective.network.weights, dtype=dtype, device=device)
    leaves = {n: p.clone().requires_grad_() for n, p in objective.network.unpack(w0).items()}
    fc, loss, alpha = objective.network.template, objective.loss, objective.centering.column(dtype)
    alpha2 = alpha.flatten() ** 2

    def bare() -> None:
        for leaf in leaves.values():
            leaf.grad = None
        centered = drop_single_output((fc.forward_members(leaves, objective.x) - objective.f0) * alpha)
        (loss.per_sample(centered, objective.y).mean(1) / alpha2).sum().backward()

    works = {"step": ours, "bare": bare}
    if objective.block_size is not None and objective.block_size < members:
        works["whole"], _ = tried_step(width, members, dtype, device, blocks=False)
    if device.type == "cuda":
        works |= {f"{name}_graph": recorded(work) for name, work in works.items()}
    return works, objective


def evaluations(objective: Objective, threads: ThreadPoolExecutor, count: int) -> list[Callable[[], None]]:
    """One evaluation by torch's threads, and one by ``count`` Python threads that have a share of the members each."""
    w = torch.randn(len(objective.f0), objective.network.weights, dtype=objective.f0.dtype)
    gradient, share = torch.empty_like(w), -(-len(w) // count)
    shares = [slice(start, start + share) for start in range(0, len(w), share)]
    parts = [(rows, objective.select(rows)) for rows in shares]
    leaf = w.clone().requires_grad_()

    def within() -> None:
        leaf.grad = None
        objective.backward(leaf)

    def one(part: tuple[slice, Objective]) -> None:
        rows, own = part
        point = w[rows].clone().requires_grad_()
        own.backward(point)
        gradient[rows] = cast(Tensor, point.grad)

    return [within, lambda: list(threads.map(one, parts)) and None]


def single_threads(count: int) -> ThreadPoolExecutor:
    """Python threads in which torch takes one thread; this thread keeps its number."""
    here = torch.get_num_threads()
    all_there = threading.Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(count, initializer=begin)
    for _ in range(count):
        pool.submit(int)
    all_there.wait()
    torch.set_num_threads(here)
    return pool


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    """The work as one CUDA graph, after its warm-up."""
    nothing = torch.empty(0, device="cuda")

    def returning() -> Tensor:
        work()
        return nothing

    step = RecordedStep(returning)
    for _ in range(4):
        step()

    def replay() -> None:
        step()

    return replay


def tried_step(*size: Any, **options: Any) -> tuple[Callable[[], None], Objective]:
    """One call is one tried step of all members of :func:`make`, whose arguments it takes."""
    flow, objective = make(*size, **options)
    state, buffer = flow.flow_state, torch.empty_like(flow.flow_state.displacement)
    weights = flow.rows.parameters[0]
    evaluate = Evaluator(flow.rows, lambda: objective.backward(weights))

    def step() -> None:
        with torch.no_grad():
            try_step(state, buffer, evaluate, flow.dynamics)

    return step, objective


def flops(width: int, members: int, samples: int = SAMPLES, depth: int = DEPTH) -> int:
    """Multiply-adds of the products, forward and backward, times two; the gradient by the inputs is not needed."""
    inner = (depth - 1) * width * width + width
    return members * samples * (4 * INPUTS * width + 6 * inner)


def moved_bytes(weights: int, dtype: torch.dtype) -> int:
    """What a step moves through memory beside the evaluation: 17 numbers a weight."""
    return 17 * weights * dtype.itemsize


def measure(device: torch.device, options: argparse.Namespace, rows: Rows) -> None:
    """All sizes."""
    moves = bandwidth(device)
    for dtype in (torch.float64, torch.float32):
        rate = product_rate(dtype, device, 8192 if device.type == "cuda" else 2048)
        for width in options.widths:
            for members in options.members:
                if width * width * members > 8e6 and device.type == "cpu":
                    continue  # seconds a step on a small machine, and the ratio is then that of E = 1
                work = functools.partial(one_size, width, members, dtype, device, options.budget, rate, moves)
                rows.add({"dtype": str(dtype).removeprefix("torch."), "h": width, "E": members}, work)


def one_size(
    width: int, members: int, dtype: torch.dtype, device: torch.device, budget: float, rate: float, moves: float
) -> dict[str, object]:
    """Times and shares; ``limit_ms``: operations at the rate of a matrix product, and moves at that of a copy."""
    chosen, objective = rivals(width, members, dtype, device)
    times = dict(zip(chosen, in_turn(list(chosen.values()), device, budget), strict=True))
    row: dict[str, object] = {f"{name}_ms": round(1e3 * statistics.median(t), 4) for name, t in times.items()}
    row |= {f"{n}_ratio": round(median_ratio(t, times["bare"]), 3) for n, t in times.items() if n != "bare"}
    row["bare_gflops"] = round(flops(width, members) / statistics.median(times["bare"]) / 1e9, 1)
    fastest = min(statistics.median(times[name]) for name in ("step", "step_graph") if name in times)
    row["gemm_share"] = round(flops(width, members) / fastest / rate, 3)
    weights = members * (INPUTS * width + (DEPTH - 1) * width * width + width)
    limit = flops(width, members) / rate + moved_bytes(weights, dtype) / moves
    row |= {"limit_ms": round(1e3 * limit, 4), "limit_share": round(limit / fastest, 3)}
    if objective.block_size is not None:
        row["block"] = min(objective.block_size, members)
    count = torch.get_num_threads()
    if device.type == "cpu" and 1 < count <= members:
        with single_threads(count) as threads:
            within, over = in_turn(evaluations(objective, threads, count), device, budget)
        row["members_over_threads"] = round(median_ratio(within, over), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--widths", type=int, nargs="+", default=[30, 100, 300, 1000])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds a case and rival")
    output_options(parser)
    options = parser.parse_args()
    device = torch.device(options.device)
    flush_denormals()
    head = {**machine(device), "n": SAMPLES, "L": DEPTH, "d": INPUTS}
    print(head)
    measure(device, options, Rows(options, head, ("dtype", "h", "E")))


if __name__ == "__main__":
    main()
