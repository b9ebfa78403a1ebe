"""Sweeps on SLURM, which is a stub of its commands: jobs are processes of this machine that submitit starts."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from experiments import slurm_stub
from experiments.cluster_sweep import ClusterSweep, processes_in
from experiments.small_sweep import until

from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments import slurm_executor
from lazy_lightning.experiments.executor_spec import ExecutorSpec
from lazy_lightning.experiments.remote_batch import PROGRESS
from lazy_lightning.experiments.slurm_executor import SlurmExecutor
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, Task, WorkerChannel

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'lazy-lightning[cluster]'")

pytestmark = [
    pytest.mark.usefixtures("no_figures"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
]


class Killed(BaseException):
    """In the place of SIGKILL, which would end the tests."""


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the job in /proc")
def test_a_sweep_killed_and_given_again_while_its_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second job waits for the first, and resumes from the checkpoint that it writes at SLURM's SIGUSR2."""
    slurm_stub.install(tmp_path / "slurm", monkeypatch)
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    sweep = ClusterSweep(folder, steps=3000)

    first: list[int] = []

    def killed(self: SlurmExecutor, timeout: float) -> list[tuple[str, BatchResult]]:
        until(sweep.checkpoints)
        first.extend(processes_in(folder, "submitit.core._submit"))
        os.kill(first[0], signal.SIGSTOP)
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(SlurmExecutor, "results", killed)
        dying.setattr(SlurmExecutor, "stop", lambda self: None)
        dying.setattr(SlurmExecutor, "close", lambda self: None)
        with pytest.raises(Killed):
            sweep.run("--executor", "slurm")

    def preempt() -> None:
        (checkpoint,) = sweep.checkpoints()
        until(lambda: "being trained by another process" in (checkpoint.parent / "log.txt").read_text())
        for number in (signal.SIGUSR2, signal.SIGCONT):
            os.kill(first[0], number)

    preempting = threading.Thread(target=preempt)
    preempting.start()
    assert sweep.run("--executor", "slurm", "--time", "10") == 0
    preempting.join()
    sweep.assert_undisturbed()
    assert not list((folder / "out").glob(f"*/{PROGRESS}"))
    assert not list((folder / "out").glob(".stop-*"))
    scripts = [path.read_text() for path in (tmp_path / "slurm").glob("*.sh")]
    assert len(scripts) == 2
    assert any("#SBATCH --time=10\n" in script for script in scripts)


def unreachable(task: Task, channel: WorkerChannel) -> BatchResult:
    raise AssertionError


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmExecutor:
    """Of a SLURM that accepts jobs and starts none."""
    slurm_stub.install(tmp_path / "slurm", monkeypatch)
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/bash\necho Submitted batch job $$\n")
    monkeypatch.setattr(slurm_executor, "_STATE_INTERVAL", 0.0)
    monkeypatch.setattr(slurm_executor, "_RESULT_DELAY", 0.0)
    return SlurmExecutor(Submission(unreachable, tmp_path, 1), ExecutorSpec("slurm", mem=2.0), tmp_path, 3)


def submitted(executor: SlurmExecutor, tmp_path: Path, count: int) -> list[Task]:
    tasks = [Task(f"run{i}", str(tmp_path / "c.yaml"), str(tmp_path / f"run{i}")) for i in range(count)]
    for task in tasks:
        Path(task.folder).mkdir()
        Path(task.folder, PROGRESS).write_text("of a killed job")
    executor.submit(tasks)
    return tasks


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("FAILED", BatchStatus.DIED),
        ("COMPLETED", BatchStatus.DIED),  # without a result
        ("CANCELLED by 1000", BatchStatus.DIED),  # by hand
        ("OUT_OF_MEMORY", BatchStatus.MEMORY),
        ("PREEMPTED", BatchStatus.PREEMPTED),
        ("TIMEOUT", BatchStatus.PREEMPTED),
        ("NODE_FAIL+", BatchStatus.PREEMPTED),
    ],
)
def test_a_job_that_ends_without_a_result(
    executor: SlurmExecutor, tmp_path: Path, state: str, status: BatchStatus
) -> None:
    submitted(executor, tmp_path, 2)
    jobs = [job.job_id for job, _ in executor._jobs.values()]
    assert [job.partition("_")[2] for job in jobs] == ["0", "1"]  # one array
    (tmp_path / "slurm/states" / jobs[0]).write_text("PENDING")
    (tmp_path / "slurm/states" / jobs[1]).write_text(state)
    ((key, result),) = executor.results(5)
    assert (key, result.status) == ("run1", status)
    assert executor.results(0) == []


def test_a_stop_cancels_jobs_that_have_not_started(executor: SlurmExecutor, tmp_path: Path) -> None:
    tasks = submitted(executor, tmp_path, 2)
    assert not Path(tasks[0].folder, PROGRESS).exists()
    Path(tasks[0].folder, PROGRESS).write_text('["run0", 1, 0, 0.5]')
    assert executor.messages() == [("run0", 1, 0, 0.5)]
    executor.stop()
    assert [(key, result.status) for key, result in executor.results(5)] == [("run1", BatchStatus.STOPPED)]
    assert list(tmp_path.glob(".stop-*"))


def test_a_second_signal_waits_for_no_job(executor: SlurmExecutor, tmp_path: Path) -> None:
    submitted(executor, tmp_path, 2)
    jobs = {job.job_id for job, _ in executor._jobs.values()}
    executor.stop()
    executor.close(at_once=True)
    executor.stop()
    executor.close()
    assert {path.name for path in (tmp_path / "slurm/states").iterdir()} == jobs  # all cancelled
    assert not list(tmp_path.glob(".stop-*"))


def test_jobs_that_sbatch_refuses(executor: SlurmExecutor, tmp_path: Path) -> None:
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/bash\necho invalid partition specified >&2; exit 1\n")
    with pytest.raises(RunError, match=r"sbatch refuses the jobs of the sweep.*invalid partition specified"):
        submitted(executor, tmp_path, 1)


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs the command sbatch, which is not on the path of this machine"):
        SlurmExecutor(Submission(unreachable, tmp_path, 1), ExecutorSpec("slurm"), tmp_path, 1)


def test_results_are_waited_for_no_longer_than_the_timeout(executor: SlurmExecutor, tmp_path: Path) -> None:
    submitted(executor, tmp_path, 1)
    start = time.monotonic()
    assert executor.results(0.2) == []
    assert time.monotonic() - start < 5
