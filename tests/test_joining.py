"""Ranks that are lost before all have joined end the others with a sentence, within seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rank_processes import run_ranks
from test_requeued_jobs import DDP, RUN

from lazy_lightning.modules import joining
from lazy_lightning.modules.joining import JoinWatch, announce_launcher

_FORK = multiprocessing.get_context("fork")
_SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_never_joins_is_named_after_the_limit(lost: int, tmp_path: Path) -> None:
    def die_or_wait(rank: int) -> None:
        joining.LIMIT = 3.0
        if rank == lost:
            os.kill(os.getpid(), signal.SIGKILL)

    begin = time.monotonic()
    arguments = [*RUN, *DDP, "--trainer.logger.save_dir", str(tmp_path)]
    codes = run_ranks(2, arguments, tmp_path / "log", die_or_wait)
    said = (tmp_path / "log" / str(1 - lost)).read_text()
    assert codes[1 - lost] == 1, said
    assert f"error: rank {lost} of 2 has not joined rank {1 - lost} within 3 s" in said
    assert "Traceback" not in said
    assert time.monotonic() - begin < 60


def _watching(log: Path, started: list[subprocess.Popen[bytes]], launched: bool) -> None:
    with log.open("w", buffering=1) as file, contextlib.redirect_stderr(file):
        with JoinWatch(int(launched), 2, started, launched):
            log.with_suffix(".pid").write_text(str(os.getpid()))
            time.sleep(60)
        os._exit(0)


def _says(log: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (log.exists() and log.read_text().endswith("\n")):
        time.sleep(0.05)
    return log.read_text()


def test_a_rank_that_this_process_has_started_ends_it(tmp_path: Path) -> None:
    def first_rank() -> None:
        child = subprocess.Popen(_SLEEP)
        child.kill()
        _watching(tmp_path / "log", [child], launched=False)

    process = _FORK.Process(target=first_rank)
    process.start()
    process.join(20)
    assert process.exitcode == 1
    assert _says(tmp_path / "log").startswith("error: rank 1 of 2 has ended before all ranks had joined")


@pytest.mark.parametrize(("launched", "who"), [(True, "rank 0 of 2"), (False, "the launcher of rank 0 of 2")])
def test_the_launcher_of_a_rank_that_ends_ends_it(launched: bool, who: str, tmp_path: Path) -> None:
    """A launcher that is killed before or after the rank begins to watch it."""

    def launcher() -> None:
        announce_launcher()
        _FORK.Process(target=_watching, args=(tmp_path / "log", [], launched)).start()
        while not (tmp_path / "log.pid").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    process = _FORK.Process(target=launcher)
    process.start()
    process.join(20)
    assert _says(tmp_path / "log").startswith(f"error: {who} has ended before all ranks had joined")


def test_ranks_that_have_joined_are_not_watched() -> None:
    child = subprocess.Popen(_SLEEP)
    with JoinWatch(0, 2, [child]) as watch:
        assert watch.loss() is None
    child.kill()
    child.wait()
    assert "rank 1 of 2" in str(watch.loss())
    time.sleep(2 * joining._INTERVAL)  # this process goes on
