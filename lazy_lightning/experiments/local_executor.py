"""Executor that trains batches in processes of this machine, or in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import ClassVar

from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task, Worker, WorkerPool


class LocalExecutor:
    """Executor whose batches are trained by the workers of a pool.

    Args:
        pool: the pool of workers.
    """

    queues: ClassVar[bool] = False

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._idle = list(pool.workers)
        self._busy: dict[Future[BatchResult], tuple[Worker, str]] = {}

    @property
    def capacity(self) -> int:
        """Number of batches that may be submitted at a time."""
        return len(self._pool.workers)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Starts batches on idle workers."""
        for task in tasks:
            worker = self._idle.pop()
            self._busy[worker.start(task)] = (worker, task.key)

    def results(self, timeout: float) -> list[tuple[str, BatchResult]]:
        """Returns the keys and results of the batches that have ended since the last call."""
        done, _ = wait(self._busy, timeout=timeout, return_when=FIRST_COMPLETED)
        found = []
        for future in done:
            worker, key = self._busy.pop(future)
            self._idle.append(worker)
            found.append((key, _result(future)))
        return found

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages received since the last call."""
        return self._pool.messages()

    def stop(self) -> None:
        """Stops all batches after their present bursts."""
        self._pool.stop()

    def close(self, at_once: bool = False) -> None:
        """Ends all workers, immediately or after their present batches."""
        self._pool.close(at_once)


def _result(future: Future[BatchResult]) -> BatchResult:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return BatchResult(BatchStatus.DIED, "its process was killed, perhaps for lack of memory")
    return BatchResult(BatchStatus.FAILED, f"{type(error).__name__}: {error}")
