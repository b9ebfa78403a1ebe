"""Everything that only a CUDA device can show, in one command: tests, speed, whole runs. ``make gpu``.

    python benchmarks/gpu.py [--out benchmarks/results] [--images FOLDER] [--only tests flow_step ...]

Each part is a process of its own under its own time limit, so that a crash or a hang of one costs only that one. The
JSON and the table (``gpu_<device>.json``, ``.md``) are written again after each part: what was measured is kept, also
what an earlier call with the same versions measured of the parts that are not asked for now.

* ``tests``: ``pytest -m gpu``, and the tests of the emulated device on the real one.
* ``flow_step``: a tried step against bare forward and backward, eager and as a CUDA graph.
* ``ntk``: the structured kernel against ``torch.func``.
* ``recorded_steps``: an evaluation of each integrator, eager and recorded as a CUDA graph.
* ``digits``: ``fit --config digits_fc.yaml`` whole, on the device and on its host.
* ``mnist``: one row of alpha of MNIST, h = 100, to all margins, with as many images as ``--images`` holds up
  to the papers' 10000 for training, by euler's rule.
* ``widths``: the same row by the integrator auto, at h = 100, 300 and 1000.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import torch
from parts import Part, outcome, run, tables
from timing import machine

ROOT = Path(__file__).parents[1]


def tests(options: argparse.Namespace, folder: Path) -> Part:
    result: Part = {}
    quiet = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    suites = {"gpu": (["-m", "gpu"], ""), "device": (["tests/emulated"], "cuda")}
    for name, (selection, device) in suites.items():
        report = folder / f"{name}.xml"
        command = [sys.executable, "-m", "pytest", *quiet, f"--junit-xml={report}", f"-n{options.workers}", *selection]
        chosen = {"LAZY_LIGHTNING_DEVICE": device} if device else {}
        ended = outcome(*run(command, options.limits["tests"], OMP_NUM_THREADS="2", **chosen))
        result[name] = ended | (counts(report) if report.is_file() else {})
    return result


def counts(report: Path) -> Part:
    """Numbers of tests, and the names of those that failed, from a JUnit file."""
    suite = next(ElementTree.parse(report).iter("testsuite"))  # our own file
    numbers = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return numbers | {"failed": failed}


def script(name: str, arguments: list[str], options: argparse.Namespace, folder: Path) -> Part:
    """One of the other benchmarks: its own JSON, or its printed rows if it did not get to the end."""
    out = folder / f"{name}.json"
    command = [sys.executable, f"benchmarks/{name}.py", "--device=cuda", f"--out={out}", *arguments]
    code, output, seconds = run(command, options.limits[name])
    result = outcome(code, output, seconds)
    return result | (json.loads(out.read_text()) if out.is_file() else {"printed": output.splitlines()})


def flow_step(options: argparse.Namespace, folder: Path) -> Part:
    return script("flow_step", ["--widths", "100", "300", "1000", "--budget=0.4"], options, folder)


def ntk(options: argparse.Namespace, folder: Path) -> Part:
    sizes = ["--widths", "300", "1000", "--samples", "2000", "--channels", "--budget=1", "--limit=5", "--product=8192"]
    return script("ntk", sizes, options, folder)


def recorded_steps(options: argparse.Namespace, folder: Path) -> Part:
    return script("recorded_steps", [], options, folder)


MEANS = ("t", "tried", "train/error", "test/error", "test/ensemble_error", "t1/half_loss", "displacement/total")
"""What is shown of a run: means over the members of an alpha."""


def fit(folder: Path, limit: float, accelerator: str, *arguments: str) -> Part:
    """A run of the command line, and what it says of its members."""
    store = folder / accelerator
    place = [f"--trainer.accelerator={accelerator}", f"--trainer.logger.init_args.save_dir={store}"]
    command = [sys.executable, "-m", "lazy_lightning", "fit", *arguments, *place]
    result = outcome(*run(command, limit))
    for file in store.rglob("summary.json"):
        summary = json.loads(file.read_text())
        result |= {key: summary[key] for key in ("wall_seconds", "gradient_evaluations")}
        result["rows"] = [
            {key: group[key] for key in ("alpha", "sqrt_h_alpha", "members", "regime")}
            | {"stops": ", ".join(group["stops"])}
            | {key: group["mean"].get(key) for key in MEANS}
            for group in summary["groups"]
        ]
    return result


def digits(options: argparse.Namespace, folder: Path) -> Part:
    limit = options.limits["digits"]
    return {place: fit(folder, limit, place, "--config", "digits_fc.yaml") for place in ("gpu", "cpu")}


def mnist(options: argparse.Namespace, folder: Path) -> Part:
    if not (sizes := mnist_sizes(options)):
        return without_images(options)
    return {**sizes, "h": 100, **mnist_row(options.images, sizes, folder, options.limits["mnist"])}


def widths(options: argparse.Namespace, folder: Path) -> Part:
    if not (sizes := mnist_sizes(options)):
        return without_images(options)
    result: Part = dict(sizes)
    limit = options.limits["widths"] / 3
    for width in (100, 300, 1000):
        by_auto = [f"--model.network.width={width}", "--model.integrator=auto"]
        result[f"h = {width}"] = mnist_row(options.images, sizes, folder / str(width), limit, *by_auto)
    return result


def without_images(options: argparse.Namespace) -> Part:
    return {"outcome": f"left out: no idx files of images in {options.images}, give --images FOLDER"}


def mnist_sizes(options: argparse.Namespace) -> Part:
    """The sizes of the sets that the images at hand suffice for; empty if there are none."""
    if options.images is None or not (held := images_in(options.images)):
        return {}
    n_test = min(10000, held // 5)
    return {"n_train": min(10000, held - n_test), "n_test": n_test}


def mnist_row(files: Path, sizes: Part, folder: Path, limit: float, *arguments: str) -> Part:
    """Seven alphas with three seeds each, to all margins."""
    data = [f"--data.files={files}", *(f"--data.{key}={value}" for key, value in sizes.items())]
    row = ["--model.alpha=[1e-3,1e-2,1e-1,1,10,100,1000]", "--model.seeds=3"]
    patience = f"--trainer.max_time=00:00:00:{int(limit - 30)}"  # ends with all files, unlike a kill
    return fit(folder, limit, "gpu", "--config", "mnist_parity_fc.yaml", *data, *row, patience, *arguments)


def images_in(folder: Path) -> int:
    """How many images the idx files of a folder hold; their headers say it."""
    total = 0
    for file in folder.glob("*-images-idx3-ubyte*"):
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            total += struct.unpack(">ii", stream.read(8))[1]
    return total


PARTS: dict[str, tuple[Callable[[argparse.Namespace, Path], Part], float]] = {
    "tests": (tests, 120.0),
    "flow_step": (flow_step, 60.0),
    "ntk": (ntk, 60.0),
    "recorded_steps": (recorded_steps, 90.0),
    "digits": (digits, 60.0),
    "mnist": (mnist, 100.0),
    "widths": (widths, 240.0),
}
"""Each part with its time limit in seconds."""


def versions() -> Part:
    import pytorch_lightning

    _, total = torch.cuda.mem_get_info()
    return {
        **machine(torch.device("cuda")),
        "memory_gib": round(total / 2**30, 1),
        "cuda": torch.version.cuda,
        "pytorch_lightning": pytorch_lightning.__version__,
    }


def earlier_parts(file: Path, found: Part) -> dict[str, Part]:
    """The parts that a file holds, if they were measured on this device with these versions."""
    if not file.is_file():
        return {}
    earlier = json.loads(file.read_text())
    same = all(earlier.get(key) == found[key] for key in found if key not in ("date", "memory_gib"))
    return dict(earlier["parts"]) if same else {}


def markdown(result: Part) -> str:
    """The tables of what was measured."""
    head = ", ".join(f"{key} {result[key]}" for key in ("device", "torch", "cuda", "pytorch_lightning", "date"))
    blocks = [f"# On a GPU\n\n{head}"]
    for name, part in result["parts"].items():
        blocks.append(f"## {name}\n\n" + "\n\n".join(tables(part)))
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--images", type=Path, help="a folder with idx files of MNIST")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--workers", type=int, default=max(1, min(10, (os.cpu_count() or 1) - 2)))
    parser.add_argument("--limit", nargs="+", default=[], metavar="PART=SECONDS", help="other time limits")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device: torch.cuda.is_available() is false")
    options.limits = {name: limit for name, (_, limit) in PARTS.items()}
    options.limits |= {name: float(value) for name, _, value in (text.partition("=") for text in options.limit)}
    found = versions()
    name = "gpu_" + re.sub(r"\W+", "_", str(found["device"]).lower())
    options.out.mkdir(parents=True, exist_ok=True)
    result: Part = {**found, "parts": earlier_parts(options.out / f"{name}.json", found)}
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.only:
            work, _ = PARTS[part]
            own = Path(scratch) / part
            own.mkdir()
            start = time.perf_counter()
            result["parts"][part] = {"date": found["date"], **work(options, own)}
            print(f"{part}: {time.perf_counter() - start:.1f} s", flush=True)
            (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
            (options.out / f"{name}.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
