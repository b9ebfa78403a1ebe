"""Execution of a sweep: submits batches to an executor and handles the result of each."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from lazy_lightning.errors import RunError
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.experiments.costs import CostModel
from lazy_lightning.experiments.executor import Executor
from lazy_lightning.experiments.sweep import BatchLimits, Sweep
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_progress import SweepProgress
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, Task
from lazy_lightning.runs.run_folder import Status

_POLL_INTERVAL = 0.2  # seconds between reads of the progress messages


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
    memory, whose process has died more than ``retries`` times, or one of whose data sets is refused, is divided into
    halves. A batch whose job was
    preempted is resumed as often as it makes progress; a preemption before the next checkpoint counts as a death.

    Args:
        folder: the folder of the sweep.
        executor: trains the batches.
        progress: receives the starts, messages and results of the batches.
        retries: how often a batch whose process has died is resumed.
    """

    def __init__(self, folder: SweepFolder, executor: Executor, progress: SweepProgress, retries: int = 1) -> None:
        self._folder, self._executor, self._progress, self._retries = folder, executor, progress, retries
        self._pending: list[Batch] = []
        self._deaths: dict[str, int] = {}
        self._checkpoints: dict[str, object] = {}
        """What distinguishes the checkpoint of each submitted batch at its submission from a later one."""
        self.stopped = False
        self.incomplete = False
        """Whether a batch has ended without writing all of its results."""

    def train(self, batches: Sequence[Batch]) -> None:
        """Trains batches until all have ended, or a signal has stopped them."""
        self._pending = list(batches)
        for batch in batches:
            self._folder.keep_plan(batch)
        submitted: dict[str, Batch] = {}
        while submitted or (self._pending and not self.stopped):
            tasks: list[Task] = []
            while len(submitted) < self._executor.capacity and self._pending and not self.stopped:
                batch = self._pending.pop(0)
                self._progress.submit(batch, self._pending, begins=not self._executor.queues)
                submitted[batch.key] = batch
                tasks.append(self._task(batch))
            if tasks:
                self._executor.submit(tasks)
            results = self._executor.results(_POLL_INTERVAL)
            self._progress.update(self._executor.messages())
            for key, result in results:
                self._handle_result(submitted.pop(key), result)

    def stop(self) -> None:
        """Stops all batches after their present bursts."""
        self.stopped = True
        self._executor.stop()

    def _task(self, batch: Batch) -> Task:
        run = self._folder.prepare_run(batch.key)
        self._checkpoints[batch.key] = self._folder.checkpoint_version(batch.key)
        return Task(batch.key, str(self._folder.config_path(batch.key)), str(run.path))

    def _has_died(self, batch: Batch, result: BatchResult) -> bool:
        """Returns whether a result counts as a death of the batch's process."""
        if result.status == BatchStatus.PREEMPTED:
            return self._folder.checkpoint_version(batch.key) == self._checkpoints[batch.key]
        return result.status == BatchStatus.DIED

    def _handle_result(self, batch: Batch, result: BatchResult) -> None:
        members = len(batch.members)
        died = self._has_died(batch, result)
        self._deaths[batch.key] = self._deaths.get(batch.key, 0) + died
        lost = result.status in (BatchStatus.DIED, BatchStatus.PREEMPTED)
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
        elif lost and (not died or self._deaths[batch.key] <= self._retries or self.stopped):
            how = "lost its process" if result.status == BatchStatus.DIED else f"was stopped ({result.reason})"
            self._progress.finish(batch, 0, 0, False, f"{how}, and resumes from its checkpoint")
            self._pending.insert(0, batch)
        elif self._may_be_divided(batch, result, lost) and batch.halves():
            self._progress.finish(batch, 0, 0, False, f"is divided ({result.reason})")
            self._divide(batch)
        else:
            self._folder.fail(batch, result.reason)
            self._progress.finish(batch, 0, members, False, f"failed: {result.reason}")

    @staticmethod
    def _may_be_divided(batch: Batch, result: BatchResult, lost: bool) -> bool:
        """Returns whether the halves of a batch may succeed; those of several data sets, too, if one is refused."""
        return (
            lost or result.status == BatchStatus.MEMORY or (result.status == BatchStatus.FAILED and bool(batch.parts))
        )

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
