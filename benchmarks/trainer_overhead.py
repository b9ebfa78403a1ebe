"""What Lightning, the observers and the sinks cost a flow step, at bursts of 50.

    python benchmarks/trainer_overhead.py [--out FILE.json]

The same flow, once as ``MomentumFlow.step`` in a bare loop and once through ``Trainer.fit`` with everything that the
command line adds (test-set metrics, weight displacement, activation drift, t1, curves, TensorBoard, progress line).
In one process, in turn. ``trainer_share`` is what is spent outside ``training_step``; ``fit_over_bare`` has the
observers and sinks in it too. Goal: under 5 % each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from timing import Rows, machine, output_options

from lazy_lightning.callbacks import (
    T1,
    ActivationDrift,
    ClosingSummary,
    Curves,
    FlowProgressBar,
    RunCheckpoint,
    TensorBoardScalars,
    WeightDisplacement,
)
from lazy_lightning.cli.user_messages import filter_warnings
from lazy_lightning.data import Digits
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

BURST = 50


class Timed(FlowModule):
    """Notes when each burst begins and how long it takes."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.bursts: list[float] = []
        self.inside: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.bursts.append(time.perf_counter())
        super().training_step(batch, batch_idx)
        self.inside.append(time.perf_counter() - self.bursts[-1])


def fit(width: int, members: int, steps: int, folder: str) -> tuple[Timed, float]:
    """One fit; the seconds from the first burst to the last."""
    module = Timed(
        functools.partial(FC, width),
        alpha=100.0,
        seeds=members,
        stop=StoppingCriteria(max_steps=steps),
        schedule=Schedule(max_burst=BURST, min_burst=BURST, step_factor=1e9, t_factor=1e9),
    )
    sinks = [WeightDisplacement(), ActivationDrift(), T1(), Curves(), TensorBoardScalars(), FlowProgressBar()]
    trainer = Trainer(
        accelerator="cpu" if not torch.cuda.is_available() else "gpu",
        devices=1,
        precision="64-true",
        max_epochs=-1,
        logger=TensorBoardLogger(folder, default_hp_metric=False),
        callbacks=[*sinks, ClosingSummary(), RunCheckpoint()],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = Digits(n_train=1000, n_test=797)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(module, data)
    return module, module.bursts[-1] - module.bursts[0]


def bare(module: FlowModule, steps: int) -> float:
    """Seconds of the same flow without a trainer."""
    w0 = module.w0
    weights = torch.nn.Parameter(w0.clone())
    from lazy_lightning.flow import MomentumFlow

    flow = MomentumFlow([weights], members=len(w0), compact=True, origin=w0, events=module.flow.dynamics.events)
    flow.steps = BURST
    start = time.perf_counter()
    for _ in range(steps // BURST):
        flow.step(lambda: module.objective.backward(weights))
    bool(flow.flow_state.running.any())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output_options(parser)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    flush_denormals()
    filter_warnings()
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = Rows(options, machine(device), ("h", "E"))
    for width, members in ((30, 1), (100, 1), (100, 8)):
        rows.add({"h": width, "E": members}, functools.partial(compare, width, members, options.steps, options.rounds))


def compare(width: int, members: int, steps: int, rounds: int) -> dict[str, float]:
    """One size; medians over rounds."""
    ratios, outside, alone = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            module, total = fit(width, members, steps, folder)
        per_step = total / ((steps // BURST - 1) * BURST)
        without = bare(module, steps) / steps
        ratios.append(per_step / without)
        outside.append((total - sum(module.inside[:-1])) / total)
        alone.append(1e3 * without)
    return {
        "bare_ms": round(statistics.median(alone), 3),
        "fit_over_bare": round(statistics.median(ratios), 3),
        "trainer_share": round(statistics.median(outside), 4),
    }


if __name__ == "__main__":
    main()
