"""Who trains the batches: one process each, that outlives a batch and whose death is told apart from a failure."""

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


class BatchStatus(StrEnum):
    """How a batch has ended."""

    ENDED = "ended"
    """All members have finished or failed; the run says which."""
    STOPPED = "stopped"
    """By a signal, and can go on."""
    FAILED = "failed"
    MEMORY = "out of memory"
    DIED = "died"
    """The process is gone: killed, perhaps for memory."""


class BatchResult(NamedTuple):
    """Of a batch."""

    status: BatchStatus
    reason: str = ""


class ProgressMessage(NamedTuple):
    """Of a batch that is being trained."""

    key: str
    done: int
    """Members that have stopped."""
    failed: int
    share: float
    """Of the work, in [0, 1]."""


@dataclass(frozen=True)
class Task:
    """What a worker is given."""

    key: str
    config: str
    """Path of the configuration."""
    folder: str
    """Of the run."""


class WorkerChannel(Protocol):
    """Where a worker's news go, and where it learns that it is to stop."""

    def put(self, news: ProgressMessage) -> None:
        """Sends."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether to stop after the present burst."""
        ...


class StopFlag(Protocol):
    """A number that all processes see."""

    value: int


@dataclass(frozen=True)
class _Channel:
    send: Callable[[ProgressMessage], Any]
    stop: StopFlag

    def put(self, news: ProgressMessage) -> None:
        self.send(news)

    @property
    def stopping(self) -> bool:
        return bool(self.stop.value)


Train = Callable[[Task, WorkerChannel], BatchResult]
"""Trains a batch to its end; importable by name, since it runs in another process."""


class Worker(Protocol):
    """Trains one batch at a time."""

    def start(self, task: Task) -> Future[BatchResult]:
        """Begins; the future's exceptions are the worker's own failures."""
        ...

    def messages(self) -> list[ProgressMessage]:
        """What has come in since the last time."""
        ...

    def end(self, at_once: bool) -> None:
        """No more batches."""
        ...


class WorkerPool:
    """Makes workers, gathers their news, and tells them to stop.

    Args:
        train: what a worker does with a task.
        workers: how many; 0 trains in this process.
        devices: CUDA devices to share out among them, one each; 0 for a CPU, whose cores are shared out.
    """

    def __init__(self, train: Train, workers: int, devices: int = 0) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stop: StopFlag = self._context.RawValue("b", 0)  # without a lock, which a killed worker might hold
        # What torch would use here, which heeds OMP_NUM_THREADS and a scheduler's share of a machine: more threads than
        # there are free cores wait for one another, and a small network takes ten times as long.
        cores = max(1, torch.get_num_threads() // max(workers, 1))
        names = _device_names(devices)
        self.workers: list[Worker] = [
            _ProcessWorker(self._context, train, self._stop, names[i % devices] if devices else None, cores)
            for i in range(workers)
        ] or [_InProcessWorker(train, self._stop)]

    def messages(self) -> list[ProgressMessage]:
        """What has come in since the last time."""
        return [news for worker in self.workers for news in worker.messages()]

    def stop(self) -> None:
        """After the present burst."""
        self._stop.value = 1

    def close(self, at_once: bool = False) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.end(at_once)


def _device_names(devices: int) -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them, which may have been set for this process already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(devices)]


class _InProcessWorker:
    """Trains in this process, while ``start`` is called."""

    def __init__(self, train: Train, stop: StopFlag) -> None:
        self._train, self._stop = train, stop
        self._news: list[ProgressMessage] = []

    def start(self, task: Task) -> Future[BatchResult]:
        future: Future[BatchResult] = Future()
        future.set_result(self._train(task, _Channel(self._news.append, self._stop)))
        return future

    def messages(self) -> list[ProgressMessage]:
        found, self._news[:] = list(self._news), []
        return found

    def end(self, at_once: bool) -> None:
        pass


class _ProcessWorker:
    """Trains in a process of its own, which is made anew when it has died."""

    def __init__(self, context: Any, train: Train, stop: StopFlag, device: str | None, threads: int) -> None:
        self._context, self._train = context, train
        self._given = (stop, device, threads)
        self._pool: ProcessPoolExecutor | None = None
        self._mail: Connection | None = None

    def start(self, task: Task) -> Future[BatchResult]:
        if self._pool is None:
            self._pool = self._new()
        try:
            return self._pool.submit(_in_worker, self._train, task)
        except BrokenProcessPool:  # it has died since
            self._pool = self._new()
            return self._pool.submit(_in_worker, self._train, task)

    def messages(self) -> list[ProgressMessage]:
        found: list[ProgressMessage] = []
        try:
            while self._mail is not None and self._mail.poll():
                found.append(self._mail.recv())
        except (EOFError, OSError):  # the process is gone; what became of its batch is told by the batch's future
            self._mail = None
        return found

    def end(self, at_once: bool) -> None:
        if self._pool is None:
            return
        if at_once:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(wait=not at_once, cancel_futures=True)

    def _new(self) -> ProcessPoolExecutor:
        # One pipe a process: a message that its death has cut off then spoils nobody else's.
        self._mail, theirs = self._context.Pipe(duplex=False)
        given = (theirs, *self._given)
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_prepare, initargs=given)


_channel: WorkerChannel | None = None
"""Of this process, if it is a worker."""


def _prepare(mail: Connection, stop: StopFlag, device: str | None, threads: int) -> None:
    """What a worker does first of all."""
    global _channel
    flush_denormals()  # before threads start, which inherit it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; who has begun it says when to stop
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    _channel = _Channel(mail.send, stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose sweep has been killed must not go on writing beside the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _in_worker(train: Train, task: Task) -> BatchResult:
    assert _channel is not None  # set by _prepare
    return train(task, _channel)
