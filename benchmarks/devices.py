"""What several processes gain: members or training samples distributed over two of one thread, against one of two.

    python benchmarks/devices.py [--out FILE.json] [--rounds N]

The same flow of the same members on the same samples, through the trainer, in turn. The time is that of a tried step
inside of a burst, without observations. ``members`` and ``samples`` are the seconds of one process over those of two,
so above 1 two are faster; medians over rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from timing import Rows, machine, output_options

from lazy_lightning.cli.trainer import FlowTrainer
from lazy_lightning.cli.user_messages import filter_warnings
from lazy_lightning.data import Digits
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

BURST, SIZES = 8, ((100, 8), (300, 2), (300, 8), (1000, 2))
WAYS = {"one": (1, "members"), "members": (2, "members"), "samples": (2, "samples")}
"""The number of processes, and what is distributed over them."""


class Timed(FlowModule):
    """Notes how long a step takes in each burst."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        flow, burst = self.flow, self.flow._burst

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return burst(*args)
            finally:
                self.seconds.append((time.perf_counter() - start) / flow.steps)

        flow._burst = timed  # type: ignore[method-assign]
        super().training_step(batch, batch_idx)
        del flow._burst


def fit(rank: int, count: int, shard: str, port: int, width: int, members: int, out: Path) -> None:
    """One process of a run, which writes the seconds of a step to a file if it is the first."""
    torch.set_num_threads(2 // count)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "benchmark",
    }  # fmt: skip
    flush_denormals()
    filter_warnings()
    warnings.simplefilter("ignore")
    module = Timed(
        functools.partial(FC, width),
        alpha=100.0,
        seeds=members,
        stop=StoppingCriteria(max_steps=4 * BURST),
        schedule=Schedule(max_burst=BURST, min_burst=BURST, step_factor=1e9, t_factor=1e9),
        shard=shard,  # type: ignore[arg-type]
    )
    module.seconds = []  # type: ignore[assignment]
    trainer = FlowTrainer(
        accelerator="cpu",
        devices=count,
        strategy="auto" if count == 1 else "ddp_members",
        precision="64-true",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, Digits(n_train=1000, n_test=100))
    if rank == 0:
        out.write_text(json.dumps(statistics.median(module.seconds[1:])))


def seconds_of_a_step(way: str, width: int, members: int) -> float:
    """From processes of their own."""
    count, shard = WAYS[way]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        ranks = [
            context.Process(target=fit, args=(rank, count, shard, port, width, members, out)) for rank in range(count)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        return float(json.loads(out.read_text()))


def compare(width: int, members: int, rounds: int) -> dict[str, float]:
    """One size; medians over rounds."""
    found = [{way: seconds_of_a_step(way, width, members) for way in WAYS} for _ in range(rounds)]
    ratios = {way: statistics.median(each["one"] / each[way] for each in found) for way in WAYS if way != "one"}
    one = 1e3 * statistics.median(each["one"] for each in found)
    return {"one_ms": round(one, 2), **{way: round(x, 2) for way, x in ratios.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output_options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(2)  # of the one process; two have one each, whatever the environment names
    rows = Rows(options, machine(torch.device("cpu")), ("h", "E"))
    for width, members in SIZES:
        rows.add({"h": width, "E": members}, functools.partial(compare, width, members, options.rounds))


if __name__ == "__main__":
    main()
