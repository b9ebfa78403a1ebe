"""The real command, killed at the worst moments: nothing is lost, nothing is done twice, the results are the same.

Two batches of a second; the checkpoints come often enough for the second to be cut off after one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from experiments.small_sweep import DEADLINE, configuration, until

from lazy_lightning.cli import main
from lazy_lightning.runs import load_runs

SWEEP = "{grid: {model.network.width: [8, 12], alpha: [0.1, 10.0], seeds: 2}}"
STEPS = 1200
NOT_RESULTS = ["wall_seconds", "path"]

pytestmark = pytest.mark.usefixtures("no_figures")


class Sweep:
    """The command in a folder, and what can be seen of it there from outside."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(configuration(STEPS))
        (folder / "mine.yaml").write_text(SWEEP)
        self._files = ["--config", str(folder / "config.yaml"), "--sweep", str(folder / "mine.yaml")]

    def arguments(self, workers: int) -> list[str]:
        return ["sweep", *self._files, "--out", str(self.out), f"--workers={workers}"]

    def start(self) -> subprocess.Popen[str]:
        """As from a shell, with a group of processes of its own."""
        arguments = [sys.executable, "-m", "lazy_lightning", *self.arguments(1)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(arguments, text=True, env=environment, start_new_session=True, **pipes)

    def finished(self) -> set[str]:
        return {path.parent.name for path in self.out.glob("*/summary.json")}

    def under_way(self) -> set[str]:
        """Runs that have a checkpoint to resume from and have not ended."""
        return {path.parent.name for path in self.out.glob("*/checkpoint.ckpt")} - self.finished()

    def half_way(self) -> bool:
        """One batch is finished, another under way."""
        return bool(self.finished() and self.under_way())

    def files(self, runs: set[str]) -> dict[Path, tuple[int, int]]:
        """When each file of some runs was written, and its size."""
        found = [path for run in runs for path in (self.out / run).rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found if path.suffix != ".ckpt"}

    def results(self) -> pd.DataFrame:
        return load_runs(self.out, duplicates=True).drop(columns=NOT_RESULTS)


def children(process: int) -> list[int]:
    """Those of them that train."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if int(words[1]) == process and "spawn_main" in command:
            found.append(int(path.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What the sweep finds if it is left alone."""
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"))
    assert main(sweep.arguments(0)) == 0
    return sweep.results()


def assert_undisturbed(sweep: Sweep, undisturbed: pd.DataFrame) -> None:
    """The whole index, to the bit; curves without a gap or a repetition."""
    pd.testing.assert_frame_equal(sweep.results(), undisturbed, check_exact=True)
    assert (undisturbed["status"] == "finished").all()
    assert (undisturbed["tried"] == STEPS).all()
    for _, curve in load_runs(sweep.out).curves.load().groupby("id"):
        assert curve["observation"].tolist() == list(range(len(curve)))
        assert curve["t"].is_monotonic_increasing


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker in /proc")


@needs_proc
def test_killed_and_given_again(tmp_path: Path, undisturbed: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(tmp_path)
    first = sweep.start()
    until(sweep.half_way, first)
    workers = children(first.pid)
    first.kill()
    first.communicate(timeout=DEADLINE)
    assert first.returncode == -signal.SIGKILL
    done, cut_off = sweep.finished(), sweep.under_way()
    assert (len(workers), len(done), len(cut_off)) == (1, 1, 1)
    until(lambda: not alive(workers[0]))  # by itself; it must not write beside the next sweep
    assert sweep.under_way() == cut_off
    before = sweep.files(done)
    unfinished = sweep.results()
    assert set(unfinished.loc[unfinished["run"].isin(cut_off), "status"]) == {"unfinished"}

    assert main(sweep.arguments(1)) == 0
    assert capfd.readouterr().out.count("begins") == 1
    assert sweep.files(done) == before
    assert sweep.finished() == done | cut_off
    assert_undisturbed(sweep, undisturbed)


@needs_proc
def test_its_worker_is_killed(tmp_path: Path, undisturbed: pd.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    """The batch goes on by itself, in a new process, from its checkpoint."""
    sweep = Sweep(tmp_path)
    before: dict[Path, tuple[int, int]] = {}

    def kill() -> None:
        until(sweep.half_way)
        before.update(sweep.files(sweep.finished()))
        for worker in children(os.getpid()):
            os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(sweep.arguments(1)) == 0
    killer.join()
    shown = capfd.readouterr().out
    assert shown.count("lost its process, and resumes from its checkpoint") == 1
    assert shown.count("begins") == 3
    assert {path: at for path, at in sweep.files(sweep.finished()).items() if path in before} == before
    assert_undisturbed(sweep, undisturbed)


def test_interrupted_from_the_keyboard(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    """Ctrl-C reaches all processes of the group."""
    sweep = Sweep(tmp_path)
    first = sweep.start()
    until(sweep.half_way, first)
    os.killpg(first.pid, signal.SIGINT)
    shown, _ = first.communicate(timeout=DEADLINE)
    assert first.returncode == 130, shown
    assert "4 of 8 members are done, 0 failed" in shown
    assert "give the same command again to resume" in shown
    before = sweep.files(set(load_runs(sweep.out).query("status == 'finished'")["run"]))
    assert before
    assert main(sweep.arguments(0)) == 0
    assert {path: at for path, at in sweep.files(sweep.finished()).items() if path in before} == before
    assert_undisturbed(sweep, undisturbed)
