"""What becomes of the tasks of Ray, with a stub in the place of Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments import ray_executor
from lazy_lightning.experiments.executor_spec import executor_spec
from lazy_lightning.experiments.ray_executor import RayExecutor
from lazy_lightning.experiments.remote_batch import PROGRESS
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, Task, WorkerChannel


class RayError(Exception):
    pass


class TaskCancelledError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class RayTaskError(RayError):
    cause: Exception | None = None


class StubRay:
    """Ray on a machine with GPUs, whose tasks end as the test says."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        TaskCancelledError=TaskCancelledError,
        OutOfMemoryError=OutOfMemoryError,
        RayTaskError=RayTaskError,
    )

    def __init__(self, gpus: int = 0) -> None:
        self.gpus, self.ends = gpus, dict[object, BatchResult | Exception]()
        self.options: dict[str, Any] = {}
        self.cancelled: list[object] = []
        self.is_running = False

    def is_initialized(self) -> bool:
        return self.is_running

    def init(self, address: str, **options: Any) -> None:
        if address != "local":
            raise ConnectionError
        self.is_running = True

    def shutdown(self) -> None:
        self.is_running = False

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": self.gpus} if self.gpus else {}

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=lambda batch: batch.task.key)

    def wait(
        self, tasks: Sequence[object], num_returns: int, timeout: float | None = None
    ) -> tuple[list[object], list]:
        assert self.is_running
        return [task for task in tasks if task in self.ends], []

    def get(self, task: object) -> BatchResult:
        end = self.ends[task]
        if isinstance(end, Exception):
            raise end
        return end

    def cancel(self, task: object, force: bool = False) -> None:
        assert self.is_running
        self.cancelled.append(task)
        self.ends[task] = TaskCancelledError()


def unreachable(task: Task, channel: WorkerChannel) -> BatchResult:
    raise AssertionError


def executor(ray: StubRay, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> RayExecutor:
    monkeypatch.setattr(ray_executor, "_imported", lambda: ray)
    made = RayExecutor(Submission(unreachable, folder, 1), executor_spec("ray", options), 3)
    for name in "abc":
        (folder / name).mkdir(exist_ok=True)
    made.submit([Task(name, "c.yaml", str(folder / name)) for name in "abc"])
    return made


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (BatchResult(BatchStatus.ENDED), (BatchStatus.ENDED, "")),
        (TaskCancelledError(), (BatchStatus.STOPPED, "")),
        (OutOfMemoryError("a task\n was killed"), (BatchStatus.MEMORY, "a task was killed")),
        (RayTaskError("odd"), (BatchStatus.FAILED, "RayTaskError: odd")),
        (RayError("lost"), (BatchStatus.DIED, "its process or its machine was lost, perhaps for lack of memory")),
    ],
)
def test_ends_of_a_task(
    end: BatchResult | Exception, result: tuple[BatchStatus, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = StubRay()
    made = executor(ray, tmp_path, monkeypatch, cpus=2)
    assert made.results(0) == []
    ray.ends["b"] = end
    assert made.results(0) == [("b", result)]
    assert made.results(0) == []
    assert ray.options == {"num_cpus": 2, "num_gpus": 0, "max_retries": 0}  # the sweep itself resumes a batch


def test_a_stop_cancels_tasks_that_have_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = StubRay()
    made = executor(ray, tmp_path, monkeypatch)
    (tmp_path / "a" / PROGRESS).write_text('["a", 0, 0, 0.0]')
    made.stop()
    assert ray.cancelled == ["b", "c"]
    assert [key for key, _ in made.results(0)] == ["b", "c"]
    made.close(at_once=True)  # a second signal
    made.stop()
    made.close()
    assert ray.cancelled == ["b", "c", "a"]
    assert not ray.is_running


def test_a_share_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = StubRay(gpus=1)
    executor(ray, tmp_path, monkeypatch, gpus=0.25)
    assert ray.options["num_gpus"] == 0.25


def test_more_gpus_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="gpus is 1, but Ray finds 0 GPUs on this machine: give --gpus 0"):
        executor(StubRay(), tmp_path, monkeypatch, gpus=1)


def test_no_cluster_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="there is no Ray cluster at auto: start one by `ray start --head`"):
        executor(StubRay(), tmp_path, monkeypatch, address="auto")
