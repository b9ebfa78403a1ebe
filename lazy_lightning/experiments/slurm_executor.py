"""Executor that trains batches as jobs of SLURM, which submitit submits as job arrays."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments.executor_spec import ExecutorSpec
from lazy_lightning.experiments.remote_batch import ProgressFiles, started
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task

JOBS = "jobs"
"""Folder in the sweep's folder that holds the scripts and logs of the jobs."""
_STATE_INTERVAL = 30.0
"""Seconds between calls of ``sacct`` for the states of all jobs."""
_RESULT_DELAY = 30.0
"""Seconds that a shared file system may take to show the result of a job that has ended."""
_UNLIMITED = 1000
"""Batches in a job array; SLURM's default limit on an array is 1001."""
_NOT_ENDED = (
    "UNKNOWN",
    "READY",
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "REQUEUED",
    "RESIZING",
    "SUSPENDED",
    "STOPPED",
    "COMPLETING",
)
"""States of a job that has not ended; UNKNOWN until ``sacct`` lists it."""
_PREEMPTED = {
    "PREEMPTED": "its job was preempted",
    "TIMEOUT": "its job reached its time limit",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node failed",
    "REVOKED": "its job was revoked",
    "DEADLINE": "its job reached its deadline",
}


class SlurmExecutor:
    """Executor that submits batches to SLURM, which runs as many at a time as there are workers.

    A job that is preempted or near its time limit receives SIGUSR2, writes its checkpoint, and ends; the sweep submits
    its batch again. SLURM itself requeues nothing, so that no batch runs twice.

    Args:
        submission: makes the functions that jobs call.
        spec: the resources of a job.
        folder: the folder of the sweep.
        workers: largest number of jobs of an array that run at a time.

    Raises:
        ConfigError: submitit is not installed, or this machine cannot submit jobs.
    """

    queues: ClassVar[bool] = True

    def __init__(self, submission: Submission, spec: ExecutorSpec, folder: Path, workers: int) -> None:
        self._submitit = _imported()
        missing = [command for command in ("sbatch", "srun", "sacct", "scancel") if shutil.which(command) is None]
        if missing:
            raise ConfigError(
                f"the executor slurm needs the command {missing[0]}, which is not on the path of this machine: give "
                "the command on a login node of a SLURM cluster"
            )
        self._submission = submission
        self._executor = self._submitit.SlurmExecutor(folder=folder.resolve() / JOBS)
        self._executor.update_parameters(**_parameters(spec, workers))
        self._progress = ProgressFiles()
        self._jobs: dict[str, tuple[Any, Task]] = {}
        self._ended: dict[str, float] = {}
        self._asked_at = time.monotonic()
        self._stopping = False

    @property
    def capacity(self) -> int:
        """Number of batches that may be submitted at a time."""
        return _UNLIMITED

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submits batches as one job array.

        Raises:
            RunError: sbatch refuses the job.
        """
        batches = [self._submission.batch(task) for task in tasks]
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(batch) for batch in batches]
        except (self._submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError) as error:
            raise RunError(f"sbatch refuses the jobs of the sweep ({' '.join(str(error).split())[-300:]})") from error
        for batch, job in zip(batches, jobs, strict=True):
            self._jobs[batch.task.key] = (job, batch.task)

    def results(self, timeout: float) -> list[tuple[str, BatchResult]]:
        """Returns the keys and results of the batches that have ended since the last call."""
        end = time.monotonic() + timeout
        while True:
            self._ask()
            found = [(key, result) for key in list(self._jobs) if (result := self._result(key)) is not None]
            for key, _ in found:
                del self._jobs[key]
                self._ended.pop(key, None)
            if found or time.monotonic() > end:
                return found
            time.sleep(0.1)

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages received since the last call."""
        return self._progress.messages(task for _, task in self._jobs.values())

    def stop(self) -> None:
        """Stops all batches after their present bursts, and cancels those that have not started."""
        self._stopping = True
        self._submission.stop()
        for job, task in self._jobs.values():
            if not started(task):
                job.cancel(check=False)

    def close(self, at_once: bool = False) -> None:
        """Cancels all jobs, or waits until they have ended after their present bursts."""
        if at_once:
            for job, _ in self._jobs.values():
                job.cancel(check=False)
            self._jobs.clear()
        while self._jobs:
            self.results(1.0)
        self._submission.close()

    def _ask(self) -> None:
        """Asks SLURM at intervals for the states of all jobs by one command; jobs with a result need no question."""
        if self._jobs and time.monotonic() - self._asked_at > _STATE_INTERVAL:
            self._asked_at = time.monotonic()
            self._submitit.SlurmJob.watcher.update()

    def _result(self, key: str) -> BatchResult | None:
        """Returns the result of a batch, or None while its job is waiting or running."""
        job, _ = self._jobs[key]
        if not job.paths.result_pickle.exists():
            state = _state(job)
            if state in _NOT_ENDED:
                return None
            ended = self._ended.setdefault(key, time.monotonic())
            return None if time.monotonic() - ended < _RESULT_DELAY else self._lost(job, state)
        error = job.exception()
        if error is not None:
            return BatchResult(BatchStatus.FAILED, str(error).strip().splitlines()[-1])
        result: BatchResult = job.result()
        return result

    def _lost(self, job: Any, state: str) -> BatchResult:
        """Returns the result of a job that has ended without one."""
        if state == "OUT_OF_MEMORY":
            return BatchResult(BatchStatus.MEMORY, f"the job {job.job_id} of SLURM exceeded its memory")
        if state in _PREEMPTED:
            return BatchResult(BatchStatus.PREEMPTED, f"{_PREEMPTED[state]}: {job.job_id}")
        if state == "CANCELLED" and self._stopping:
            return BatchResult(BatchStatus.STOPPED)
        return BatchResult(BatchStatus.DIED, f"the job {job.job_id} of SLURM ended as {state}: see {job.paths.stderr}")


def _state(job: Any) -> str:
    """Returns the last known state of a job."""
    state = job.watcher.get_state(job.job_id, mode="cache").upper()  # "CANCELLED by 1000", "CANCELLED+"
    return str(state.partition(" ")[0].rstrip("+"))


def _imported() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "the executor slurm needs the package submitit, which is not installed: pip install "
            "'lazy-lightning[cluster]'"
        ) from error
    return submitit


def _parameters(spec: ExecutorSpec, workers: int) -> dict[str, Any]:
    """Returns the parameters of submitit for the resources of a job."""
    paths = ":".join(shlex.quote(path) for path in Submission.imports())
    given = {
        "partition": spec.partition,
        "gres": spec.gres,
        "account": spec.account,
        "qos": spec.qos,
        "constraint": spec.constraint,
        "mem": None if spec.mem is None else f"{round(1024 * spec.mem)}MB",
    }
    return {
        "job_name": "lazy-lightning",
        "time": spec.minutes,
        "cpus_per_task": spec.cpus,
        "ntasks_per_node": 1,
        "array_parallelism": workers,
        "setup": [*spec.setup, f"export PYTHONPATH={paths}"],
        "additional_parameters": {"no-requeue": True},
        **{key: value for key, value in given.items() if value is not None},
    }
