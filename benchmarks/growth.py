"""How time and memory grow with the width h, the samples n, the members E and the depth L: power laws with errors.

    python benchmarks/growth.py [--out FILE.json] [--quick]

Around h = 100, n = 1000, E = 4, L = 3, 64 inputs, float64, one of the four varies:

* ``step``: a tried step of ``euler``;
* ``implicit``: an evaluation of the implicit formulas at alpha = 100, with its systems and kernels, over the first 40
  of a run;
* ``kernel``: the structured tangent kernel of one member (not against E).

Memory is what building and stepping adds to the process (``peak_mib``). ``time``, ``memory`` and ``operations`` are the
exponents of power laws through the points, ``lazy_lightning.analysis.power_law_of_points``; ``operations`` are the
counted ones of the products, so its exponent is what time should have where they are the limit.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from flow_step import DEPTH, INPUTS, SAMPLES, flops, make
from flow_step import tried_step as one_tried_step
from timing import Rows, machine, output_options, peak_mib, seconds

from lazy_lightning.analysis import power_law_of_points
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import StepsTried
from lazy_lightning.nn import FC
from lazy_lightning.ntk import ObjectiveClosure, empirical_ntk

CPU = torch.device("cpu")
EVALUATIONS = 40


class Size(NamedTuple):
    """What is built."""

    h: int = 100
    n: int = SAMPLES
    E: int = 4
    L: int = DEPTH


VARIED: dict[str, dict[str, tuple[int, ...]]] = {
    "step": {"h": (100, 200, 400, 800), "n": (500, 1000, 2000, 4000), "E": (2, 4, 8, 16), "L": (2, 4, 8, 16)},
    "implicit": {"h": (50, 100, 200, 400), "n": (250, 500, 1000, 2000), "E": (1, 2, 4, 8), "L": (2, 4, 8, 16)},
    "kernel": {"h": (100, 200, 400, 800), "n": (500, 1000, 2000, 4000), "L": (2, 4, 8, 16)},
}
QUICK = 3
"""Points of each power law with ``--quick``: the smallest."""


def step_seconds(size: Size) -> float:
    """A tried step of Euler."""
    step, _ = one_tried_step(size.h, size.E, torch.float64, CPU, size.n, size.L)
    seconds(step, 2, CPU)
    return statistics.median(seconds(step, 3, CPU) for _ in range(5))


def implicit_seconds(size: Size) -> float:
    """An evaluation of the implicit formulas."""
    start = time.perf_counter()
    flow, objective = make(
        size.h,
        size.E,
        torch.float64,
        CPU,
        size.n,
        size.L,
        100.0,
        integrator="implicit",
        events=[StepsTried(EVALUATIONS)],
    )
    weights = flow.rows.parameters[0]
    flow.steps = EVALUATIONS
    flow.step(ObjectiveClosure(weights, objective, flow))
    return (time.perf_counter() - start) / EVALUATIONS


def kernel_seconds(size: Size) -> float:
    """A kernel of all samples."""
    torch.manual_seed(0)
    net = FC(size.h, size.L, input_shape=INPUTS).double()
    x = torch.randn(size.n, INPUTS, dtype=torch.float64)
    work = functools.partial(empirical_ntk, net, None, x, output="trace", method="structured")
    seconds(work, 1, CPU)
    return statistics.median(seconds(work, 1, CPU) for _ in range(3))


WORKS: dict[str, Callable[[Size], float]] = {
    "step": step_seconds,
    "implicit": implicit_seconds,
    "kernel": kernel_seconds,
}


def operations(what: str, size: Size) -> float:
    """Of the products, and of the Cholesky factors, one about every third evaluation."""
    evaluation = float(flops(size.h, size.E, size.n, size.L))
    if what == "step":
        return evaluation
    pairs = INPUTS + size.h + (size.L - 1) * 2 * size.h + size.h + 1
    kernel = size.n**2 * pairs
    if what == "kernel":
        return evaluation / size.E + kernel
    return evaluation + size.E * size.n**3 / 3 / 3


def one_point(what: str, size: Size) -> dict[str, Any]:
    """Time, and memory in a call of its own."""
    taken = WORKS[what](size)
    return {"seconds": taken, "mib": peak_mib(lambda: WORKS[what](size), CPU), "gflop": operations(what, size) / 1e9}


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each power law, with exponents and their standard errors.

    Args:
        rows: of a file of this benchmark.
    """
    lines = []
    for what, axis in dict.fromkeys((row["what"], row["axis"]) for row in rows):
        own = [row for row in rows if (row["what"], row["axis"]) == (what, axis)]
        if len(own) < 3:
            continue
        x = [row[axis] for row in own]
        line: dict[str, Any] = {"what": what, "axis": axis, "from": min(x), "to": max(x)}
        for name, column in (("time", "seconds"), ("memory", "mib"), ("operations", "gflop")):
            values = [row[column] for row in own]
            if all(value is not None and value > 0 for value in values):
                fitted = power_law_of_points(x, values)
                line |= {name: fitted.slope, f"{name}_error": fitted.error}
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three points of each power law")
    parser.add_argument("--parts", nargs="+", choices=list(VARIED), default=list(VARIED))
    output_options(parser)
    options = parser.parse_args()
    flush_denormals()
    rows = Rows(options, {**machine(CPU), "d": INPUTS, "dtype": "float64"}, ("what", "axis", *Size._fields))
    for what in options.parts:
        for axis, points in VARIED[what].items():
            for value in points[: QUICK if options.quick else None]:
                size = Size()._replace(**{axis: value})
                rows.add({"what": what, "axis": axis, **size._asdict()}, functools.partial(one_point, what, size))
    for line in exponents(rows.rows):
        print(
            "  ".join(f"{key} {value:.2f}" if isinstance(value, float) else str(value) for key, value in line.items())
        )


if __name__ == "__main__":
    main()
