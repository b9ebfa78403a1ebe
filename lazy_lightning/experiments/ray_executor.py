"""Executor that trains batches as tasks of Ray, on this machine or on a running cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments.executor_spec import ExecutorSpec
from lazy_lightning.experiments.remote_batch import ProgressFiles, RemoteBatch, started
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task

_log = logging.getLogger(__name__)


class RayExecutor:
    """Executor that submits each batch as a task of Ray; nodes may join and leave while it runs.

    Ray itself does not retry a task, because the sweep resumes or divides the batch of a task that has died.

    Args:
        submission: makes the functions that Ray calls.
        spec: the address of the cluster and the resources of a batch.
        workers: largest number of batches that are submitted at a time.
        gpus: number of GPUs of a batch, if ``spec`` has none.

    Raises:
        ConfigError: Ray is not installed.
        RunError: no cluster is found at the address.
    """

    queues: ClassVar[bool] = True

    def __init__(self, submission: Submission, spec: ExecutorSpec, workers: int, gpus: float = 0) -> None:
        self._ray = _imported()
        self._submission, self._workers = submission, workers
        self._progress = ProgressFiles()
        self._tasks: dict[Any, Task] = {}
        self._cancelled: set[Any] = set()
        self._shut = _connected(self._ray, spec, workers)
        share = gpus if spec.gpus is None else spec.gpus
        _require_gpus(self._ray, spec, share)
        remote = self._ray.remote(num_cpus=spec.cpus, num_gpus=share, max_retries=0)
        self._call = remote(_called)

    @property
    def capacity(self) -> int:
        """Number of batches that may be submitted at a time."""
        return self._workers

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queues batches, which start as soon as a node has the resources."""
        for task in tasks:
            self._tasks[self._call.remote(self._submission.batch(task))] = task

    def results(self, timeout: float) -> list[tuple[str, BatchResult]]:
        """Returns the keys and results of the batches that have ended since the last call."""
        done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
        if done:
            done, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        return [(self._tasks.pop(reference).key, self._result(reference)) for reference in done]

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages received since the last call."""
        return self._progress.messages(self._tasks.values())

    def stop(self) -> None:
        """Stops all batches after their present bursts, and cancels those that have not started."""
        self._submission.stop()
        for reference in [reference for reference, task in self._tasks.items() if not started(task)]:
            self._cancelled.add(reference)
            self._ray.cancel(reference)

    def close(self, at_once: bool = False) -> None:
        """Ends all tasks, immediately or after their present bursts, and leaves the cluster."""
        for reference in self._tasks if at_once else ():
            self._ray.cancel(reference, force=True)
        if at_once:
            self._tasks.clear()
        if self._tasks:
            self._ray.wait(list(self._tasks), num_returns=len(self._tasks))
        self._submission.close()
        if self._shut:
            self._ray.shutdown()

    def _result(self, reference: Any) -> BatchResult:
        exceptions = self._ray.exceptions
        try:
            result: BatchResult = self._ray.get(reference)
            return result
        except exceptions.TaskCancelledError:
            return BatchResult(BatchStatus.STOPPED)
        except exceptions.OutOfMemoryError as error:
            return BatchResult(BatchStatus.MEMORY, _sentence(error))
        except exceptions.RayTaskError as error:  # an exception of the worker itself
            cause = error.cause if isinstance(error.cause, Exception) else error
            return BatchResult(BatchStatus.FAILED, f"{type(cause).__name__}: {_sentence(cause)}")
        except exceptions.RayError:
            if reference in self._cancelled:
                return BatchResult(BatchStatus.STOPPED)
            return BatchResult(BatchStatus.DIED, "its process or its machine was lost, perhaps for lack of memory")


def _called(batch: RemoteBatch) -> BatchResult:
    return batch()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its next version
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "the executor ray needs the package ray, which is not installed: pip install 'lazy-lightning[cluster]'"
        ) from error
    return ray


def _connected(ray: Any, spec: ExecutorSpec, workers: int) -> bool:
    """Connects to a cluster or starts Ray on this machine, and returns whether this call has done so."""
    if ray.is_initialized():  # by the user's script
        return False
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(Submission.imports())}}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": environment}
    if spec.address is None:
        cores = max(os.cpu_count() or 1, workers * spec.cpus)  # --workers decides, as it does without Ray
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **options)
        return True
    try:
        ray.init(address=spec.address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(
            f"there is no Ray cluster at {spec.address}: start one by `ray start --head`, or leave --address out to "
            "start Ray on this machine"
        ) from error
    return True


def _require_gpus(ray: Any, spec: ExecutorSpec, share: float) -> None:
    """Checks that a batch can start: Ray on this machine has no more GPUs later, but a cluster may grow."""
    available = ray.cluster_resources().get("GPU", 0) if share else share
    if share <= available:
        return
    if spec.address is None:
        ray.shutdown()
        raise ConfigError(
            f"gpus is {share:g}, but Ray finds {available:g} GPUs on this machine: give --gpus 0, or --address"
        )
    _log.warning(
        "the cluster at %s has %g GPUs: a batch, which needs %g, waits for more", spec.address, available, share
    )


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
