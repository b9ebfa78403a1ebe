"""Runs the experiments of the claims that are not complete, and writes the page from all that are stored."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lazy_lightning.claims import EXPERIMENTS
from lazy_lightning.errors import DataError
from lazy_lightning.runs.load import load_runs

DOCS = Path(__file__).parents[1]


def is_complete(folder: Path) -> bool:
    """Returns whether a command's folder contains runs all of whose members have finished."""
    try:
        return bool((load_runs(folder)["status"] == "finished").all())
    except DataError:  # the folder does not exist, or no run in it has begun
        return False


def images_by_name(given: list[str]) -> dict[str, str]:
    """Returns the files of data sets by the sets' names, from words such as ``CIFAR10=FOLDER``.

    Raises:
        ValueError: a word is not of this form, or no experiment needs its data set.
    """
    needed = {one.images for one in EXPERIMENTS.values()} - {None}
    found = dict(word.partition("=")[::2] for word in given)
    for name, path in found.items():
        if name not in needed or not Path(path).exists():
            raise ValueError(f"--images {name}={path}: expected {' or '.join(sorted(map(str, needed)))}=existing path")
    return found


def commands(name: str, root: Path, images: dict[str, str]) -> Iterator[list[str]]:
    """Yields the commands of an experiment that remain: a stopped sweep goes on, a stopped fit starts again."""
    experiment = EXPERIMENTS[name]
    files = [f"--data.files={images[experiment.images]}"] if experiment.images in images else []
    for folder, command in experiment.commands_in(root / name).items():
        if not is_complete(folder):
            yield [*shlex.split(command), *files]


def main(given: list[str] | None = None) -> int:
    """Runs what remains of the chosen experiments; returns 1 if one of the commands failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"experiments, by default all: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--root", type=Path, default=Path("runs/claims"), help="folder of the experiments' runs")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="files of data sets at hand, as CIFAR10=FOLDER or CIFAR10=FILE.npz; others are downloaded",
    )
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the page")
    options: Any = parser.parse_args(given)
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"unknown experiment {unknown[0]}: choose from {', '.join(EXPERIMENTS)}")
    try:
        images = images_by_name(options.images)
    except ValueError as error:
        parser.error(str(error))
    program = [sys.executable, "-m", "lazy_lightning"]
    failed = []
    for name in options.names or EXPERIMENTS:
        for words in commands(name, options.root, images):
            print("$ lazy-lightning", shlex.join(words), flush=True)
            if subprocess.run([*program, *words], check=False, env=os.environ).returncode:
                failed.append(name)
    for name in failed:
        print(
            f"{name}: a command failed, and its claims are not measured; run make claims again to go on",
            file=sys.stderr,
        )
    report = [*program, "report", str(options.root), "--claims", "--out", str(options.out)]
    return subprocess.run(report, check=False).returncode or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
