"""All benchmarks in turn, their results in one file, and the tables of it. ``make bench``.

    python benchmarks/bench.py [--quick] [--minutes M] [--only PART ...] [--resume]
        [--images FOLDER] [--cifar FILE.npz] [--neural-tangents PYTHON]

Each part is a process of its own under its own time limit. The JSON and the tables (``results/bench_<device>.json`` and
``.md``) are written after each part, with the rows that a part has measured until it failed or ran out of time.
``--resume`` leaves out what has been measured, down to single rows, which are kept in ``--work``. ``--minutes`` bounds
all parts together; those that no time is left for are named in the table. The quick form takes a quarter of an hour on
an idle machine of two cores; ``make gpu`` is what only a CUDA device can show.

* ``flow_step``: a tried step against a bare forward and backward pass.
* ``member_axis``: a sweep as one batch against one member at a time, in members a minute.
* ``convergence``: runs to all margins against a plain program of the published rule.
* ``ntk``: the tangent kernel against ``torch.func``, and against neural-tangents in an interpreter that has it.
* ``mini_batch``: a step of mini-batch training against a loop over networks.
* ``integrators``: evaluations and time against error.
* ``growth``: exponents of time and memory against h, n, E and L.
* ``trainer_overhead``: what Lightning, observers and sinks add.
* ``devices``: members or samples distributed over two processes (left out by ``--quick``).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from bench_tables import markdown
from parts import ROOT, Part, outcome, run
from timing import machine, save

_GRACE = 20.0
"""Seconds before the limit of a part after which it begins no row."""


class Plan(NamedTuple):
    """How a part is run."""

    full: str
    """Arguments of the script."""
    limit: float
    """Seconds."""
    quick: str | None
    """Arguments with ``--quick``; None to leave the part out."""
    quick_limit: float


PLANS: dict[str, Plan] = {
    "flow_step": Plan("", 400, "--widths 30 100 300 --budget 0.4", 200),
    "member_axis": Plan("", 900, "--widths 30", 400),
    "convergence": Plan("", 1200, "--samples 200 --members 1 --rounds 2", 150),
    "ntk": Plan("--budget 5 --limit 60", 900, "--widths 100 300 --samples 500 --budget 0.5 --limit 20", 100),
    "mini_batch": Plan("", 600, "--members 10 --dtypes float32", 100),
    "integrators": Plan("", 7200, "--data digits --samples 250 --quick", 200),
    "growth": Plan("", 900, "--quick", 200),
    "trainer_overhead": Plan("", 300, "--steps 200 --rounds 2", 100),
    "devices": Plan("", 600, None, 0),
}


def command(name: str, options: argparse.Namespace, out: Path, limit: float) -> list[str]:
    """What runs a part."""
    plan = PLANS[name]
    given = [sys.executable, f"benchmarks/{name}.py", "--out", str(out)]
    given += ((plan.quick or "") if options.quick else plan.full).split()
    given += ["--resume", "--seconds", str(max(1.0, limit - _GRACE))]
    places = {"integrators": ("images", "cifar"), "ntk": ("neural_tangents",)}
    for place in places.get(name, ()):
        if (value := getattr(options, place)) is not None:
            given += [f"--{place.replace('_', '-')}", str(value)]
    return given


def measured(name: str, options: argparse.Namespace, limit: float) -> Part:
    """A part: how it ended, and its JSON as far as it was written."""
    out = options.work / f"{name}.json"
    code, output, seconds = run(command(name, options, out, limit), limit)
    ended = outcome(code, output, seconds)
    if code in (None, 3):  # killed, or ended by itself before its limit
        ended = {"outcome": "out of time after these rows", "seconds": ended["seconds"]}
    return ended | (json.loads(out.read_text()) if out.is_file() else {"rows": []})


def chosen(options: argparse.Namespace) -> list[str]:
    """The parts to run."""
    return [name for name in options.only if not (options.quick and PLANS[name].quick is None)]


def run_all(options: argparse.Namespace, file: Path) -> Part:
    """All parts, written after each."""
    found: Part = {**machine(torch.device("cpu")), "quick": options.quick, "parts": {}}
    if options.resume and file.is_file():
        earlier = json.loads(file.read_text())
        if all(earlier.get(key) == found[key] for key in found if key not in ("date", "load", "parts")):
            found["parts"] = earlier["parts"]
    deadline = time.monotonic() + 60 * options.minutes
    for name in chosen(options):
        if found["parts"].get(name, {}).get("outcome") == "passed":
            continue
        plan = PLANS[name]
        limit = min(plan.quick_limit if options.quick else plan.limit, deadline - time.monotonic())
        if limit < _GRACE:
            found["parts"].setdefault(name, {"outcome": "left out: no time left", "rows": []})
        else:
            found["parts"][name] = measured(name, options, limit)
        print(f"{name}: {found['parts'][name]['outcome']}, {found['parts'][name].get('seconds', 0)} s", flush=True)
        save(found, file)
        file.with_suffix(".md").write_text(markdown(found))
    return found


def main() -> int:
    """Exit code 1 if a part failed; running out of time is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="rows of parts not yet complete")
    parser.add_argument("--quick", action="store_true", help="few sizes: ten minutes in all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after this time")
    parser.add_argument("--only", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--resume", action="store_true", help="leave out what has been measured on this machine")
    parser.add_argument("--images", type=Path, help="a folder with idx files of MNIST")
    parser.add_argument("--cifar", type=Path, help="an .npz file with images x and classes y of CIFAR-10")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="an interpreter that has neural-tangents")
    options = parser.parse_args()
    for place in ("images", "cifar", "work"):
        if (value := getattr(options, place)) is not None:
            setattr(options, place, value.resolve())
    if not options.resume:
        shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    file = options.out / f"bench_{re.sub(r'[^a-z0-9]+', '_', device.lower())}.json"
    found = run_all(options, file)
    print(file.with_suffix(".md").read_text())
    ended = [part["outcome"] for part in found["parts"].values()]
    return int(any(text.startswith("exit code") for text in ended))


if __name__ == "__main__":
    raise SystemExit(main())
