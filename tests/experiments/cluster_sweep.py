"""A small sweep for the executors of other machines, and what an undisturbed one finds."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from experiments.small_sweep import configuration

from lazy_lightning.cli import main
from lazy_lightning.runs import load_runs

SWEEP = "{grid: {model.network.width: [8], alpha: [0.1, 10.0], seeds: 2}}"


class ClusterSweep:
    """The command with relative paths, in a folder that all machines share."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder = folder
        (folder / "config.yaml").write_text(configuration(steps, figures=False))
        (folder / "mine.yaml").write_text(SWEEP)

    def run(self, *options: str, out: str = "out") -> int:
        return main(["sweep", "--config", "config.yaml", "--sweep", "mine.yaml", "--out", out, *options])

    def checkpoints(self, out: str = "out") -> list[Path]:
        """Of batches that have not ended."""
        found = (self.folder / out).glob("*/checkpoint.ckpt")
        return [path for path in found if not (path.parent / "summary.json").exists()]

    def results(self, out: str = "out") -> pd.DataFrame:
        return load_runs(self.folder / out, duplicates=True).drop(columns=["wall_seconds", "path"])

    def assert_undisturbed(self, out: str = "out") -> None:
        """The index is, to the bit, that of an undisturbed sweep in this process."""
        assert self.run("--workers", "0", out="undisturbed") == 0
        pd.testing.assert_frame_equal(self.results(out), self.results("undisturbed"), check_exact=True)
        assert (self.results(out)["status"] == "finished").all()


def processes_in(folder: Path, word: str) -> list[int]:
    """Processes with this working folder and a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(path / "cwd")) == folder and word in (path / "cmdline").read_text():  # noqa: PTH115
                found.append(int(path.name))
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return found
