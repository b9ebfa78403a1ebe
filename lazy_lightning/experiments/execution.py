"""Execution of a sweep: starts batches on workers and handles the result of each."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType

from lazy_lightning.errors import RunError
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.experiments.costs import CostModel
from lazy_lightning.experiments.sweep import BatchLimits, Sweep
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_progress import SweepProgress
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, Task, Worker, WorkerPool
from lazy_lightning.runs.run_folder import Status

_POLL_INTERVAL = 0.2  # seconds between reads of the workers' progress messages
_MAX_DEATHS = 2  # of a worker's process, before its batch is divided


def run_sweep(
    sweep: Sweep,
    execution: Execution,
    progress: SweepProgress,
    costs: CostModel,
    limits: BatchLimits,
    retry_failed: bool = False,
) -> None:
    """Trains the pending members of a sweep until there are none or a signal stops it.

    The pending members are computed again after each pass, because bisections and kernels of trained networks add
    members.

    Raises:
        RunError: a run that has ended is pending again, so the loop would not terminate.
    """
    begun: set[str] = set()
    while not execution.stopped:
        rows = sweep.rows()
        batches = sweep.batches(rows, costs.of(rows), limits, retry_failed)
        if not batches:
            return
        progress.set_total(len(sweep.status(rows, retry_failed).wanted))
        _require_progress(batches, begun)
        execution.train(batches)
        retry_failed = False  # failed members are trained again only once


def _require_progress(batches: Sequence[Batch], begun: set[str]) -> None:
    again = [batch.key for batch in batches if batch.key in begun]
    if again:
        raise RunError(
            f"the run {again[0]} has ended, but its members are not found in the index: its config.yaml is not the one "
            "that was planned; please report this"
        )
    begun.update(batch.key for batch in batches)


class Execution:
    """Trains batches in the order of their list.

    The failure of a batch is recorded with its reason, and the other batches continue. A batch that does not fit into
    memory, or whose process has died twice, is divided into halves.

    Args:
        folder: the folder of the sweep.
        pool: the pool of workers.
        progress: receives the starts, messages and results of the batches.
    """

    def __init__(self, folder: SweepFolder, pool: WorkerPool, progress: SweepProgress) -> None:
        self._folder, self._worker_pool, self._progress = folder, pool, progress
        self._pending: list[Batch] = []
        self._deaths: dict[str, int] = {}
        self.stopped = False
        self.incomplete = False
        """Whether a batch has ended without writing all of its results."""

    def train(self, batches: Sequence[Batch]) -> None:
        """Trains batches until all have ended, or a signal has stopped them."""
        self._pending = list(batches)
        for batch in batches:
            self._folder.keep_plan(batch)
        idle, busy = list(self._worker_pool.workers), dict[Future[BatchResult], tuple[Worker, Batch]]()
        while busy or (self._pending and not self.stopped):
            while idle and self._pending and not self.stopped:
                worker, batch = idle.pop(), self._pending.pop(0)
                self._progress.start(batch, self._pending)
                busy[self._start(worker, batch)] = (worker, batch)
            done, _ = wait(busy, timeout=_POLL_INTERVAL, return_when=FIRST_COMPLETED)
            self._progress.update(self._worker_pool.messages())
            for future in done:
                worker, batch = busy.pop(future)
                idle.append(worker)
                self._handle_result(batch, _batch_result(future))

    def stop(self) -> None:
        """Stops all batches after their present bursts."""
        self.stopped = True
        self._worker_pool.stop()

    def _start(self, worker: Worker, batch: Batch) -> Future[BatchResult]:
        run = self._folder.prepare_run(batch.key)
        return worker.start(Task(batch.key, str(self._folder.config_path(batch.key)), str(run.path)))

    def _handle_result(self, batch: Batch, result: BatchResult) -> None:
        members = len(batch.members)
        self._deaths[batch.key] = self._deaths.get(batch.key, 0) + (result.status == BatchStatus.DIED)
        if result.status == BatchStatus.STOPPED:
            self.stopped = True
            self._progress.finish(batch, 0, 0, False, "stopped, and resumes the next time")
        elif result.status == BatchStatus.ENDED:
            statuses = [row["status"] for row in self._folder.run(batch.key).rows(batch.key)]
            failed = statuses.count(Status.FAILED)
            how = f"ended, {failed} failed" if failed else "ended"
            if result.reason:
                self.incomplete = True
                how += f", but {result.reason}"
            self._progress.finish(batch, members - failed, failed, True, how)
        elif result.status == BatchStatus.DIED and (self._deaths[batch.key] < _MAX_DEATHS or self.stopped):
            self._progress.finish(batch, 0, 0, False, "lost its process, and resumes from its checkpoint")
            self._pending.insert(0, batch)
        elif result.status in (BatchStatus.MEMORY, BatchStatus.DIED) and batch.halves():
            self._progress.finish(batch, 0, 0, False, f"is divided ({result.reason})")
            self._divide(batch)
        else:
            self._folder.fail(batch, result.reason)
            self._progress.finish(batch, 0, members, False, f"failed: {result.reason}")

    def _divide(self, batch: Batch) -> None:
        self._folder.forget_plan(batch.key)
        shutil.rmtree(self._folder.run(batch.key).path)
        for half in reversed(batch.halves()):
            self._folder.keep_plan(half)
            self._pending.insert(0, half)


@contextmanager
def stops_on_signal(
    stop: Callable[[], None], at_once: Callable[[], None], log: Callable[[str], None]
) -> Iterator[None]:
    """Context in which the first Ctrl-C or SIGTERM stops after the present bursts, and the second one immediately.

    Args:
        stop: called at the first signal.
        at_once: called at the second signal, before KeyboardInterrupt is raised.
        log: receives a line of text about the first signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            at_once()
            raise KeyboardInterrupt
        stop()
        log(f"{signal.Signals(number).name}: the batches stop after their present bursts; repeat to stop immediately")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _batch_result(future: Future[BatchResult]) -> BatchResult:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return BatchResult(BatchStatus.DIED, "its process was killed, perhaps for lack of memory")
    return BatchResult(BatchStatus.FAILED, f"{type(error).__name__}: {error}")
