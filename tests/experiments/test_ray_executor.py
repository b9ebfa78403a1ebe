"""Sweeps on Ray, which the test starts."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from experiments.cluster_sweep import ClusterSweep, processes_in
from experiments.small_sweep import until

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lazy-lightning[cluster]'")

pytestmark = [pytest.mark.usefixtures("no_figures"), pytest.mark.filterwarnings("default:unclosed:ResourceWarning")]


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the worker in /proc")
def test_a_batch_whose_worker_is_killed_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The index is that of an undisturbed sweep; the paths of the command are relative to its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    sweep = ClusterSweep(tmp_path, steps=2000)

    def kill() -> None:
        until(sweep.checkpoints)
        workers = processes_in(tmp_path, "ray::_called")
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert sweep.run("--executor", "ray") == 0
    killer.join()
    shown = capfd.readouterr().out
    assert shown.count("lost its process, and resumes from its checkpoint") == 1, shown
    assert shown.count("seeds queued\n") == 2, shown
    assert 1 <= shown.count("begins") <= 2  # the first one was perhaps killed before its message was read
    sweep.assert_undisturbed()
