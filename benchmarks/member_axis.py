"""What a sweep saves by batching alphas and seeds on the member axis.

    python benchmarks/member_axis.py [--out FILE.json] [--widths 30 100]

The same members through ``sweep``, once as one batch a width and once one at a time, in this process, on the digits
with all observers. ``whole`` is all of it, with parsing, data, figures and files of each run; ``fit`` is the sum of the
runs' ``wall_seconds``; ``members_per_minute`` is what a sweep as one batch gets through.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import tempfile
import time
from pathlib import Path

import torch
import yaml
from timing import Rows, machine, output_options

from lazy_lightning import load_runs
from lazy_lightning.cli import main
from lazy_lightning.denormals import flush_denormals

SCALES = (1e-2, 1e0, 1e2, 1e3)
SEEDS = 3


def sweep(folder: Path, width: int, at_once: int, *options: str) -> dict[str, float]:
    """Seconds of a sweep: in all, and inside of its fits."""
    folder.mkdir()
    declaration = {"grid": {"model.network.width": width, "sqrt_h_alpha": list(SCALES), "seeds": SEEDS}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(declaration))
    given = ["--config", "digits_fc.yaml", "--config", "callbacks/full.yaml", "--sweep", str(folder / "sweep.yaml")]
    chosen = ["--data.n_train=200", "--model.dt=1e-3", "--workers=0", f"--max_members={at_once}"]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(["sweep", *given, *chosen, f"--out={folder / 'runs'}", *options])
    whole = time.perf_counter() - start
    if code != 0:
        raise SystemExit(f"the sweep ended with {code}")
    runs = load_runs(folder / "runs").drop_duplicates("run")
    return {"whole": whole, "fit": float(runs["wall_seconds"].sum()), "runs": len(runs)}


def compare(width: int, folder: Path) -> dict[str, object]:
    """One width."""
    members = len(SCALES) * SEEDS
    folder.mkdir()
    batch = sweep(folder / "batch", width, members)
    alone = sweep(folder / "alone", width, 1)
    return {
        "batch": batch,
        "alone": alone,
        "whole_ratio": alone["whole"] / batch["whole"],
        "fit_ratio": alone["fit"] / batch["fit"],
        "members_per_minute": 60 * members / batch["whole"],
        "members_per_minute_alone": 60 * members / alone["whole"],
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    output_options(parser)
    parser.add_argument("--widths", type=int, nargs="+", default=[30, 100, 300])
    given = parser.parse_args()
    flush_denormals()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = Rows(given, {**machine(device), "observers": "callbacks/full.yaml"}, ("width", "members"))
    with tempfile.TemporaryDirectory() as folder:
        sweep(Path(folder) / "warm", 8, 12, "--model.stop.max_steps=5")  # imports, first allocations
        for width in given.widths:
            work = functools.partial(compare, width, Path(folder) / str(width))
            rows.add({"width": width, "members": len(SCALES) * SEEDS}, work)


if __name__ == "__main__":
    run()
