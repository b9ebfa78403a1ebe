"""What CUDA graphs save an evaluation of each integrator.

    python benchmarks/recorded_steps.py [--out FILE.json]

FC, L = 3, softplus(5), softhinge(20), n = 1000, alpha = 100, of float64, and of float32 in pairs. ``eager_ms`` and
``graph_ms`` are the time of one evaluation of E members, over some hundred evaluations after the first hundred, one
after the other in one process. The steps of euler's rule and of the explicit pair are recorded whole, in the integrator
auto those of its explicit part; the implicit formulas decide on the host, and an evaluation of theirs contains their
linear algebra, and a new kernel where one was computed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from flow_step import make
from timing import Rows, machine, output_options

from lazy_lightning.flow import MomentumFlow, TimeReached
from lazy_lightning.ntk import ObjectiveClosure
from lazy_lightning.objective.paired_batch import PairedObjective

INTEGRATORS = ("euler", "explicit", "implicit", "auto")


def flow_of(name: str, width: int, members: int, paired: bool, graphs: bool) -> tuple[MomentumFlow, ObjectiveClosure]:
    """A flow at its start."""
    device, dtype = torch.device("cuda"), torch.float32 if paired else torch.float64
    _, objective = make(width, members, dtype, device, alpha=100.0)
    w0 = torch.randn(members, objective.network.weights, device=device, dtype=dtype)
    followed: Any = PairedObjective.of(objective, w0) if paired else objective
    w = torch.nn.Parameter(torch.zeros_like(w0) if paired else w0.clone())
    flow = MomentumFlow(
        [w], members=members, events=[TimeReached(1e9)], dt=1e-3, integrator=name, cuda_graphs=graphs, steps=25
    )
    return flow, ObjectiveClosure(w, followed, flow)


def milliseconds(flow: MomentumFlow, closure: ObjectiveClosure, evaluations: int = 300, before: int = 100) -> float:
    """Of one evaluation of all members."""

    def tried() -> int:
        return int(flow.flow_state.tried.max()) if flow.started else 0

    while tried() < before:
        flow.step(closure)
    torch.cuda.synchronize()
    first, start = tried(), time.perf_counter()
    while tried() < first + evaluations:
        flow.step(closure)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / (tried() - first)


def measure(name: str, width: int, members: int, paired: bool) -> dict[str, Any]:
    """Both, and their ratio."""
    if name == "implicit":
        return {"eager_ms": round(milliseconds(*flow_of(name, width, members, paired, False)), 4)}
    eager, graph = (milliseconds(*flow_of(name, width, members, paired, graphs)) for graphs in (False, True))
    return {"eager_ms": round(eager, 4), "graph_ms": round(graph, 4), "ratio": round(graph / eager, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda"])
    parser.add_argument("--widths", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8])
    output_options(parser)
    options = parser.parse_args()
    head = {**machine(torch.device("cuda")), "n": 1000, "L": 3, "alpha": 100}
    rows = Rows(options, head, ("integrator", "pairs", "h", "E"))
    for paired in (False, True):
        for width in options.widths:
            for members in options.members:
                for name in INTEGRATORS:
                    identity = {"integrator": name, "pairs": paired, "h": width, "E": members}
                    rows.add(identity, lambda n=name, w=width, e=members, p=paired: measure(n, w, e, p))


if __name__ == "__main__":
    main()
