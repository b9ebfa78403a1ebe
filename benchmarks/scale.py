"""What the papers' full phase diagrams cost on 1 to 512 GPUs, from a cost model fitted to measurements.

    python benchmarks/scale.py [--out FILE.json] [--figure FILE.png]

1. Operations of one evaluation of loss and gradient, counted by torch on tensors without memory.
2. Time of one tried step on the GPU: t = overhead + operations/rate + moved numbers/bandwidth, fitted to the steps of
   ``results/gpu_nvidia_h200.json``.
3. Evaluations of a member: the model of a sweep's estimate (``experiments/evaluation_count.py``).
4. The phase diagram in batches as large as the memory of a device admits, on 1 to 512 devices, the longest first. The
   times of the batches scatter as measured: the evaluations of a batch are those of its slowest member.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from timing import save
from torch.utils.flop_counter import FlopCounterMode

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.experiments.evaluation_count import expected_evaluations
from lazy_lightning.experiments.makespan import makespan
from lazy_lightning.figures.scale import SCALE_LABEL
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.style import save as save_figure
from lazy_lightning.nn import FC

RESULTS = Path(__file__).parent / "results"
DEPTH, INPUTS = 3, 784
SCALES = np.logspace(-4, 7, 23)
"""sqrt(h) alpha of the papers, by half decades."""
WIDTHS, SEEDS, SAMPLES, TESTED = (30, 100, 300, 1000, 3000, 10000), 20, 10_000, 50_000
DEVICES = (1, 8, 64, 512)
MEMORY = 120 * 2**30
"""Bytes of a device that a batch may use."""
STATE = 12
"""Numbers kept for each weight (experiments/costs.py)."""
EVALUATIONS_A_FACTOR = 2.5
"""Evaluations of an implicit integrator for each Cholesky factor (digits, n = 1000)."""
SPREAD = 1.25
"""Factor by which the evaluations of members that differ only in the seed scatter (one standard deviation)."""


class Step(NamedTuple):
    """Work of one evaluation of one member."""

    operations: float
    """Floating-point operations of forward and backward pass."""
    moved: float
    """Numbers that must be read or written at least: activations twice in each pass, weights a few times."""
    bytes: float
    """Memory of a member."""


def step_of(width: int, samples: int, inputs: int, size: int = 8) -> Step:
    """Counts the work of one evaluation of a fully connected network, on tensors of the device ``meta``."""
    with torch.device("meta"):
        network = FC(width, DEPTH, input_shape=inputs)
    x = torch.empty(samples, inputs, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    weights = sum(parameter.numel() for parameter in network.parameters())
    activations = samples * (2 * DEPTH * width + 1)  # z and its activation are kept by each layer
    return Step(counter.get_total_flops(), 3 * activations + STATE * weights, size * (activations + STATE * weights))


class GpuModel(NamedTuple):
    """t = overhead + operations/rate + moved/bandwidth, in seconds."""

    overhead: float
    rate: float
    """Operations per second."""
    bandwidth: float
    """Numbers per second."""
    worst: float
    """Largest relative error of a measured time."""

    def seconds(self, step: Step, members: int) -> float:
        """Returns the time of one tried step of a batch."""
        return self.overhead + members * (step.operations / self.rate + step.moved / self.bandwidth)


def fitted_gpu(rows: Sequence[dict[str, Any]], samples: int, inputs: int) -> GpuModel:
    """Fits the model to recorded steps, by least squares of relative errors with coefficients >= 0."""
    steps = [step_of(row["h"], samples, inputs) for row in rows]
    work = np.array([[1.0, r["E"] * s.operations, r["E"] * s.moved] for r, s in zip(rows, steps, strict=True)])
    measured = np.array([row["step_graph_ms"] / 1e3 for row in rows])
    coefficients, _ = nnls(work / measured[:, None], np.ones(len(rows)))
    worst = float(np.abs(work @ coefficients / measured - 1).max())
    overhead, per_operation, per_number = (float(c) for c in coefficients)
    return GpuModel(overhead, 1 / per_operation, 1 / per_number if per_number else math.inf, worst)


def with_kernel(step: Step, samples: int, size: int = 8) -> Step:
    """Adds the work of an implicit step: its share of a Cholesky factor, products with the kernel, their memory."""
    factor = samples**3 / 3 / EVALUATIONS_A_FACTOR
    return Step(
        step.operations + factor + 8 * samples**2,
        step.moved + (4 + 2 / EVALUATIONS_A_FACTOR) * samples**2,
        step.bytes + 4 * size * samples**2,
    )


class Diagram(NamedTuple):
    """Batches of a phase diagram."""

    expected: list[float]
    """Seconds of each batch."""
    taken: list[float]
    """The same with the scatter over seeds."""
    largest: float
    """Bytes of the largest member."""


def diagram(gpu: GpuModel, integrator: str, devices: int, seed: int = 0) -> Diagram:
    """Divides the papers' phase diagram into batches by the rules of a sweep (``experiments/batching.py``).

    A batch has one width and one scale, fits into the memory, and takes at most the total time over the devices, if it
    has several members. Members that have ended leave it.
    """
    rng = np.random.default_rng(seed)
    steps = {width: step_of(width, SAMPLES, INPUTS) for width in WIDTHS}
    if integrator == "auto":
        steps = {width: with_kernel(step, SAMPLES) for width, step in steps.items()}
    counts = {float(scale): expected_evaluations(float(scale), SAMPLES, integrator) for scale in SCALES}
    share = sum(SEEDS * counts[s] * gpu.seconds(step, 1) for step in steps.values() for s in counts) / devices
    expected, taken = [], []
    for step, count in itertools.product(steps.values(), counts.values()):
        capacity = min(SEEDS, MEMORY / step.bytes, share / (count * gpu.seconds(step, 1)))
        parts = np.array_split(np.arange(SEEDS), math.ceil(SEEDS / max(1, int(capacity))))
        for members in map(len, parts):
            seconds = count * gpu.seconds(step, members)
            factors: NDArray[np.float64] = SPREAD ** rng.standard_normal(members)
            left = np.diff(np.sort(factors), prepend=0.0) * np.arange(members, 0, -1) / members
            expected.append(seconds)
            taken.append(seconds * float(left.sum()))
    return Diagram(expected, taken, max(step.bytes for step in steps.values()))


def planned(gpu: GpuModel, integrator: str) -> list[dict[str, float]]:
    """Returns for each number of devices the batches, the wall time, and how busy the devices are."""
    rows = []
    for devices in DEVICES:
        found = diagram(gpu, integrator, devices)
        course = makespan(found.expected, devices, found.taken)
        rows.append(
            {
                "devices": devices,
                "batches": len(found.expected),
                "seconds": course.seconds,
                "utilisation": course.utilisation,
                "longest": max(found.taken),
                "largest_gib": found.largest / 2**30,
            }
        )
    return rows


def draw(plans: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draws the evaluations of a member against sqrt(h) alpha, and the wall time against the number of devices."""
    with paper_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.7), layout="constrained")
        for integrator, marker in (("euler", "o"), ("auto", "s")):
            counts = [expected_evaluations(float(scale), SAMPLES, integrator) for scale in SCALES]
            left.loglog(SCALES, counts, label=integrator)
            devices, seconds = ([row[name] for row in plans[integrator]] for name in ("devices", "seconds"))
            right.loglog(devices, np.array(seconds) / 3600, marker=marker, label=integrator)
        rows = json.loads((RESULTS / "gpu_nvidia_h200.json").read_text())["parts"]["mnist"]["rows"]
        left.plot([r["sqrt_h_alpha"] for r in rows], [r["tried"] for r in rows], "k.", label="measured, n = 8000")
        left.set(xlabel=SCALE_LABEL, ylabel=f"evaluations of a member, n = {SAMPLES}", ylim=(100, None))
        right.set(xlabel="number of GPUs", ylabel="wall time (h)", xticks=DEVICES, xticklabels=DEVICES)
        for axes in (left, right):
            axes.legend()
        save_figure(figure, path.with_suffix(""), [".png"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    parser.add_argument("--figure", type=Path, help="the evaluations of a member and the wall time on devices, as PNG")
    options = parser.parse_args()
    measured = json.loads((RESULTS / "gpu_nvidia_h200.json").read_text())
    steps = measured["parts"]["flow_step"]
    gpu = fitted_gpu([r for r in steps["rows"] if r["dtype"] == "float64"], steps["n"], steps["d"])
    print(
        f"{measured['device']}: a step takes {1e3 * gpu.overhead:.2f} ms + operations/({gpu.rate:.3g}/s) + "
        f"moved/({gpu.bandwidth:.3g}/s), within {100 * gpu.worst:.0f} % of {len(steps['rows']) // 2} measured steps"
    )
    plans = {integrator: planned(gpu, integrator) for integrator in ("euler", "auto")}
    for integrator, rows in plans.items():
        print(f"\n{integrator}; a member of h = {WIDTHS[-1]} takes {rows[0]['largest_gib']:.0f} GiB")
        for row in rows:
            times = f"{duration(row['seconds']):>12}, longest batch {duration(row['longest'])}"
            print(f"  {row['devices']:4.0f} devices: {times}, busy {100 * row['utilisation']:.0f} %")
    if options.out:
        fit = {**gpu._asdict(), "device": measured["device"], "measured": measured["date"]}
        sizes = {"widths": WIDTHS, "scales": len(SCALES), "seeds": SEEDS, "n": SAMPLES}
        save({"gpu": fit, **sizes, "plans": plans}, options.out)
    if options.figure:
        draw(plans, options.figure)


if __name__ == "__main__":
    main()
