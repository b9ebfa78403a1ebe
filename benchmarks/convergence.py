"""Runs until all margins are met, against the published rule of arXiv:1906.08034 as a plain program has it.

    python benchmarks/convergence.py [--out FILE.json] [--samples 200 1000] [--rounds 3]

Digits, FC with L = 3 and h = 100, one output, softhinge(20), float64, in one process and in turn; medians over rounds.
``plain`` is ``plain_flow.py``: torch modules, deep copies, a step undone. ``reference`` is the same rule here, with the
same tried steps and, to ``difference``, the same outputs; ``euler`` the default controller, ``auto`` that integrator at
a tolerance of 1e-3. A ratio is the plain program's time over ours: above 1 ours is faster. ``members`` runs of the
plain program are made one after the other, ours together.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as nnf
from plain_flow import plain_flow
from timing import Rows, machine, output_options
from torch import Tensor, nn

from lazy_lightning.data import Digits
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import MarginsMet, MomentumFlow
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import ObjectiveClosure
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import build_loss

WIDTH, DEPTH = 100, 3
WAYS: dict[str, dict[str, Any]] = {
    "reference": {"controller": "reference"},
    "euler": {"controller": "gradient_change"},
    "auto": {"integrator": "auto", "tol": 1e-3},
}


class Problem:
    """Members with equal alpha and different seeds on the digits."""

    def __init__(self, samples: int, alpha: float, members: int) -> None:
        data = Digits(n_train=samples, n_test=100, labels="parity")
        data.setup()
        self.x, self.y, self.alpha = data.train.x.double(), data.train.y.double(), alpha
        factory = functools.partial(FC, width=WIDTH, depth=DEPTH)
        initial = InitialMembers(factory, range(members), data.input_shape, data.num_outputs)
        self.w0 = initial.w0
        centering = Centering(torch.full((members,), alpha, dtype=torch.float64))
        f0 = raw_outputs(initial.network, self.w0, self.x, {})
        self.objective = Objective(initial.network, build_loss("softhinge(20)"), centering, self.x, self.y, f0, {})

    def ours(self, way: str) -> tuple[list[int], Tensor]:
        """Tried steps, and F (E, n)."""
        w = nn.Parameter(self.w0.clone())
        events = [MarginsMet()]
        flow = MomentumFlow([w], members=len(w), events=events, steps=50, origin=self.w0, compact=True, **WAYS[way])
        closure = ObjectiveClosure(w, self.objective, flow)
        while not flow.started or any(flow.clock().running):
            flow.step(closure)
        outputs = flow.flow_state.outputs
        assert outputs is not None or way != "reference"  # its controller watches them
        return flow.flow_state.tried.tolist(), outputs if outputs is not None else torch.empty(0)

    def plain(self, tried: list[int]) -> list[Tensor]:
        """F (n,) of each member after these tried steps."""
        found = []
        for row, steps in zip(self.w0, tried, strict=True):
            model = FC(WIDTH, DEPTH, input_shape=tuple(self.x.shape[1:])).double()
            nn.utils.vector_to_parameters(row.clone(), model.parameters())
            found.append(plain_flow(model, self.x, self._penalty, self.alpha, steps).outputs)
        return found

    def _penalty(self, F: Tensor) -> Tensor:
        return nnf.softplus(1 - F * self.y, 20, 40)


def compare(samples: int, alpha: float, members: int, rounds: int) -> dict[str, Any]:
    """All ways in turn."""
    problem = Problem(samples, alpha, members)
    tried = {way: problem.ours(way)[0] for way in WAYS}
    _, outputs = problem.ours("reference")
    difference = float((torch.stack(problem.plain(tried["reference"])) - outputs).abs().max())
    times: dict[str, list[float]] = {name: [] for name in ("plain", *WAYS)}
    for _ in range(rounds):
        for name, taken in times.items():
            start = time.perf_counter()
            if name == "plain":
                problem.plain(tried["reference"])
            else:
                problem.ours(name)
            taken.append(time.perf_counter() - start)
    row: dict[str, Any] = {"difference": difference}
    row |= {f"{way}_tried": round(sum(counts) / members, 1) for way, counts in tried.items()}
    row |= {f"{name}_s": round(statistics.median(taken), 4) for name, taken in times.items()}
    for way in WAYS:
        ratios = [plain / own for plain, own in zip(times["plain"], times[way], strict=True)]
        row[f"{way}_ratio"] = round(statistics.median(ratios), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--alphas", type=float, nargs="+", default=[100.0, 1.0, 0.01])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    output_options(parser)
    options = parser.parse_args()
    flush_denormals()
    rows = Rows(options, {**machine(torch.device("cpu")), "h": WIDTH, "L": DEPTH}, ("n", "alpha", "members"))
    for samples in options.samples:
        for alpha in options.alphas:
            for members in options.members:
                work = functools.partial(compare, samples, alpha, members, options.rounds)
                rows.add({"n": samples, "alpha": alpha, "members": members}, work)


if __name__ == "__main__":
    main()
