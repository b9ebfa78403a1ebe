"""Choice of an executor, batches on other machines, and preempted batches; nothing is trained."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import pytest
from command_line import error_of
from experiments.test_sweep_execution import ENDED, FakePool, batch, executed, progress

from lazy_lightning.cli import batch as cli_batch
from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments.execution import Execution
from lazy_lightning.experiments.executor_spec import executor_spec
from lazy_lightning.experiments.local_executor import LocalExecutor
from lazy_lightning.experiments.remote_batch import PROGRESS, ProgressFiles
from lazy_lightning.experiments.slurm_executor import SlurmExecutor
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task, WorkerChannel
from lazy_lightning.runs.lock import HeldError
from lazy_lightning.runs.run_folder import RunFolder

PREEMPTED = BatchResult(BatchStatus.PREEMPTED, "its job was preempted: 7")
DIED = BatchResult(BatchStatus.DIED, "killed")

# ---------------------------------------------------------------------- specification


def test_the_command_line_has_precedence_over_the_file() -> None:
    content = {"name": "slurm", "partition": "gpu", "time": "02:00:30", "setup": ["module load cuda"], "mem": 8}
    spec = executor_spec(content, {"time": "90", "partition": None})
    assert (spec.name, spec.partition, spec.minutes, spec.setup) == ("slurm", "gpu", 90, ("module load cuda",))
    assert executor_spec(content).minutes == 121  # rounded up
    assert executor_spec(content, {"executor": "local"}).retries == 1  # the keys of SLURM do not matter
    assert executor_spec({"name": "ray", "retries": 3}, {"executor": "local"}).retries == 3
    assert executor_spec(None).name == "local"


@pytest.mark.parametrize(("gpus", "batches"), [(None, 1), (0.25, 4), (0.3, 3), (0.1, 10), (1, 1), (2, 1), (0, 1)])
def test_batches_that_share_a_gpu(gpus: float | None, batches: int) -> None:
    assert executor_spec("ray", {"gpus": gpus}).per_device == batches


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("sge", {}, "the executor is 'sge', expected local, ray, slurm"),
        (None, {"partition": "gpu"}, "the executor local has no partition, which is a key of the executor slurm"),
        ("ray", {"time": "10"}, "the executor ray has no time, which is a key of the executor slurm: leave it out"),
        ({"name": "slurm", "partitoin": "a"}, {}, "has no key partitoin: did you mean partition"),
        ({"partition": "a"}, {}, "expected a name, or keys such as"),
        ("slurm", {"time": "1 h"}, "time is '1 h', expected minutes, HH:MM:SS or D-HH:MM:SS"),
        ("ray", {"gpus": 1.5}, "gpus is 1.5, expected a fraction of one GPU or a whole number"),
        ("ray", {"cpus": 0}, "cpus is 0, expected an integer of at least 1"),
        ("local", {"retries": -1}, "retries is -1, expected an integer of at least 0"),
        ({"name": "slurm", "mem": -2}, {}, "mem is -2, expected a positive number"),
    ],
)
def test_refused_specifications(content: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        executor_spec(content, options)


def test_an_absent_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "mine.yaml").write_text("{grid: {seeds: 1}}")
    command = ["sweep", "--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml"]
    command += ["--sweep", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--executor", "ray"]
    message = error_of(command, capsys)
    assert "the executor ray needs the package ray, which is not installed" in message
    assert message.endswith("pip install 'lazy-lightning[cluster]'")
    submission = Submission(reported, tmp_path, 1)
    with pytest.raises(
        ConfigError, match=r"slurm needs the package submitit.* pip install 'lazy-lightning\[cluster\]'"
    ):
        SlurmExecutor(submission, executor_spec("slurm"), tmp_path, 1)


# ---------------------------------------------------------------------- preemption and retries


def checkpointing(folder: Path, results: list[BatchResult], writes: int) -> tuple[FakePool, RunFolder]:
    """A batch of two members with these results, the first ``writes`` of which leave a checkpoint."""
    one = batch(seeds=2)

    def script(task: Task) -> BatchResult:
        path, number = Path(task.folder, "checkpoint.ckpt"), len(pool.seen)
        if number <= writes:
            path.write_text("x" * number)
        return results.pop(0) if task.key == one.key else ENDED

    pool = FakePool(script)
    Execution(SweepFolder(folder), LocalExecutor(pool), progress(), retries=1).train([one])
    return pool, RunFolder(folder / one.key)


def test_a_preempted_batch_is_resumed_as_often_as_it_makes_progress(tmp_path: Path) -> None:
    pool, run = checkpointing(tmp_path, [*[PREEMPTED] * 6, ENDED], writes=6)
    assert len(pool.seen) == 7
    assert run.ended


def test_preemptions_without_a_checkpoint_count_as_deaths(tmp_path: Path) -> None:
    pool, run = checkpointing(tmp_path, [PREEMPTED, PREEMPTED], writes=0)
    assert len(pool.seen) == 4  # twice whole, then in halves
    assert not run.path.exists()


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries(tmp_path: Path, retries: int) -> None:
    one = batch()
    pool = FakePool(lambda task: DIED)
    Execution(SweepFolder(tmp_path), LocalExecutor(pool), progress(), retries).train([one])
    assert len(pool.seen) == 1 + retries
    assert RunFolder(tmp_path / one.key).failure == "killed"


def test_an_executor_may_take_all_batches_at_once(tmp_path: Path) -> None:
    batches = [batch(width) for width in range(1, 5)]
    assert executed(tmp_path, batches, lambda task: ENDED, workers=9).seen == [b.key for b in batches]


# ---------------------------------------------------------------------- a batch on another machine


def reported(task: Task, channel: WorkerChannel) -> BatchResult:
    """Reports progress, receives what is in the log of the batch, and stops if it must."""
    channel.put(ProgressMessage(task.key, 1, 0, 0.5))
    assert Path("here.txt").is_file()
    found = ProgressFiles().messages([task])
    for word in Path(task.config).read_text().split():
        os.kill(os.getpid(), getattr(signal, word))
    return BatchResult(BatchStatus.STOPPED if channel.stopping else BatchStatus.ENDED, str(found))


@pytest.fixture
def submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    monkeypatch.chdir(tmp_path)
    Path("here.txt").touch()
    Path("run").mkdir()
    return Submission(reported, tmp_path, 1)


def called(submission: Submission, config: str, elsewhere: Path) -> BatchResult:
    Path("c.yaml").write_text(config)
    sent = pickle.dumps(submission.batch(Task("key", "c.yaml", "run")))
    os.chdir(elsewhere)
    result: BatchResult = pickle.loads(sent)()  # noqa: S301
    assert Path.cwd() == elsewhere
    return result


def test_paths_are_those_of_the_command(submission: Submission, tmp_path: Path) -> None:
    message = ProgressMessage("key", 1, 0, 0.5)
    assert called(submission, "", Path("/")) == (BatchStatus.ENDED, str([message]))
    assert not (tmp_path / "run" / PROGRESS).exists()


def test_stopped_by_the_sweep_or_by_a_signal_of_the_scheduler(submission: Submission, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGUSR2)
    assert called(submission, "SIGUSR2", Path("/")).status == BatchStatus.PREEMPTED
    assert signal.getsignal(signal.SIGUSR2) is handler
    os.chdir(tmp_path)
    submission.stop()
    assert called(submission, "", Path("/")).status == BatchStatus.STOPPED
    submission.close()
    assert not list(tmp_path.glob(".stop*"))


def test_a_machine_without_the_folder_of_the_command(submission: Submission, tmp_path: Path) -> None:
    sent = submission.batch(Task("key", "c.yaml", "run"))
    lost = type(sent)(sent.train, sent.task, sent.stop, str(tmp_path / "absent"), sent.imports, 1)
    with pytest.raises(
        RunError, match=r"has no folder .*/absent: give the command in a folder that all machines share"
    ):
        lost()


class Channel:
    """Of a sweep that stops or does not."""

    def __init__(self, stopping: bool) -> None:
        self.stopping = stopping

    def put(self, message: ProgressMessage) -> None: ...


@pytest.mark.parametrize(("stopping", "status"), [(False, BatchStatus.ENDED), (True, BatchStatus.STOPPED)])
def test_a_batch_that_another_process_trains_is_waited_for(
    stopping: bool, status: BatchStatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a job that a killed sweep has submitted."""
    looks: list[Task] = []

    def held(task: Task, folder: Path, reporter: object) -> BatchResult:
        looks.append(task)
        if len(looks) == 3:
            (folder / "failure.json").write_text('{"schema": 1, "reason": "of the other process"}')
        raise HeldError("the run is being trained by another process")

    monkeypatch.setattr(cli_batch, "_fitted", held)
    monkeypatch.setattr(cli_batch, "_HELD_INTERVAL", 0.01)
    assert cli_batch.train(Task("key", "", str(tmp_path)), Channel(stopping)) == (status, "")
    assert len(looks) == (1 if stopping else 3)
