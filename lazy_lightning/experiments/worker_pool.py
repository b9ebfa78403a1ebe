"""Worker pool of a sweep: each process trains batch after batch, and its death is distinguished from a failure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

import torch

from lazy_lightning.denormals import flush_denormals
from lazy_lightning.heap import keep_freed_memory


class BatchStatus(StrEnum):
    """The way in which a batch ended."""

    ENDED = "ended"
    """All members have finished or failed; the run records which."""
    STOPPED = "stopped"
    """A signal stopped the batch, which can be resumed."""
    PREEMPTED = "preempted"
    """The scheduler of other machines ended the job; the batch can be resumed in another."""
    FAILED = "failed"
    """An exception ended the batch."""
    MEMORY = "out of memory"
    """The batch did not fit into memory."""
    DIED = "died"
    """The process was killed, possibly for lack of memory."""


class BatchResult(NamedTuple):
    """The status of a batch at its end, with the reason of a failure."""

    status: BatchStatus
    reason: str = ""


class ProgressMessage(NamedTuple):
    """The progress of a batch that is being trained."""

    key: str
    """The key of the batch."""
    done: int
    """Number of members that have stopped, including failed ones."""
    failed: int
    """Number of members that have failed."""
    share: float
    """Completed share of the work, in [0, 1]."""


@dataclass(frozen=True)
class Task:
    """The description of a batch that is sent to a worker."""

    key: str
    """The key of the batch."""
    config: str
    """Path of the configuration."""
    folder: str
    """Path of the run's folder."""


class WorkerChannel(Protocol):
    """Connection of a worker to the sweep: takes progress messages and holds the request to stop."""

    def put(self, message: ProgressMessage) -> None:
        """Sends a progress message to the sweep."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the worker must stop after the present burst."""
        ...


class StopFlag(Protocol):
    """An integer in memory shared by all processes."""

    value: int


@dataclass(frozen=True)
class _Channel:
    send: Callable[[ProgressMessage], Any]
    stop: StopFlag

    def put(self, message: ProgressMessage) -> None:
        self.send(message)

    @property
    def stopping(self) -> bool:
        return bool(self.stop.value)


Train = Callable[[Task, WorkerChannel], BatchResult]
"""Function that trains a batch; it must be importable by name, because it runs in another process."""


class Worker(Protocol):
    """Interface of a worker, which trains one batch at a time."""

    def start(self, task: Task) -> Future[BatchResult]:
        """Starts a batch; an exception of the future is a failure of the worker itself."""
        ...

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages received since the last call."""
        ...

    def end(self, at_once: bool) -> None:
        """Ends the worker, immediately or after its present batch."""
        ...


class WorkerPool:
    """Creates workers, collects their progress messages, and stops them.

    Args:
        train: the function with which a worker trains a task.
        workers: number of worker processes; 0 trains in this process.
        devices: number of CUDA devices, which are assigned to the workers in turn; 0 for a CPU, whose cores are
            divided among the workers.
    """

    def __init__(self, train: Train, workers: int, devices: int = 0) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stop: StopFlag = self._context.RawValue("b", 0)  # without a lock, which a killed worker might hold
        # The number of threads that torch would use, which respects OMP_NUM_THREADS and the cores that a scheduler has
        # assigned: more threads than free cores wait for one another, and a small network takes ten times as long.
        cores = max(1, torch.get_num_threads() // max(workers, 1))
        names = _device_names(devices)
        self.workers: list[Worker] = [
            _ProcessWorker(self._context, train, self._stop, names[i % devices] if devices else None, cores)
            for i in range(workers)
        ] or [_InProcessWorker(train, self._stop)]

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages of all workers since the last call."""
        return [message for worker in self.workers for message in worker.messages()]

    def stop(self) -> None:
        """Stops all workers after their present bursts."""
        self._stop.value = 1

    def close(self, at_once: bool = False) -> None:
        """Ends all workers, immediately or after their present batches."""
        for worker in self.workers:
            worker.end(at_once)


def _device_names(devices: int) -> list[str]:
    """Returns the names of the devices for CUDA_VISIBLE_DEVICES, which may be set for this process already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(devices)]


class _InProcessWorker:
    """Worker that trains in this process, during the call of ``start``."""

    def __init__(self, train: Train, stop: StopFlag) -> None:
        self._train, self._stop = train, stop
        self._messages: list[ProgressMessage] = []

    def start(self, task: Task) -> Future[BatchResult]:
        future: Future[BatchResult] = Future()
        future.set_result(self._train(task, _Channel(self._messages.append, self._stop)))
        return future

    def messages(self) -> list[ProgressMessage]:
        found, self._messages[:] = list(self._messages), []
        return found

    def end(self, at_once: bool) -> None:
        pass


class _ProcessWorker:
    """Worker that trains in a separate process, which is replaced if it has died."""

    def __init__(self, context: Any, train: Train, stop: StopFlag, device: str | None, threads: int) -> None:
        self._context, self._train = context, train
        self._given = (stop, device, threads)
        self._pool: ProcessPoolExecutor | None = None
        self._connection: Connection | None = None

    def start(self, task: Task) -> Future[BatchResult]:
        if self._pool is None:
            self._pool = self._new()
        try:
            return self._pool.submit(_in_worker, self._train, task)
        except BrokenProcessPool:  # the process has died since its last batch
            self._pool = self._new()
            return self._pool.submit(_in_worker, self._train, task)

    def messages(self) -> list[ProgressMessage]:
        found: list[ProgressMessage] = []
        try:
            while self._connection is not None and self._connection.poll():
                found.append(self._connection.recv())
        except (EOFError, OSError):  # the process has died; the batch's future reports it
            self._connection = None
        return found

    def end(self, at_once: bool) -> None:
        if self._pool is None:
            return
        if at_once:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(wait=not at_once, cancel_futures=True)

    def _new(self) -> ProcessPoolExecutor:
        # Each process has its own pipe, so a message truncated by its death does not corrupt those of other workers.
        self._connection, sending_end = self._context.Pipe(duplex=False)
        given = (sending_end, *self._given)
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_prepare, initargs=given)


_channel: WorkerChannel | None = None
"""The channel of this process, if it is a worker."""


def _prepare(connection: Connection, stop: StopFlag, device: str | None, threads: int) -> None:
    """Initialises a worker process: heap, denormals, signals, device, threads and channel."""
    global _channel
    keep_freed_memory()
    flush_denormals()  # before threads start, because they inherit the mode
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the sweep's process sets the stop flag
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    _channel = _Channel(connection.send, stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent dies, so that it does not write to the folder of the next sweep."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _in_worker(train: Train, task: Task) -> BatchResult:
    assert _channel is not None  # set by _prepare
    return train(task, _channel)
