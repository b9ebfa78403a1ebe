"""Training of one batch of a sweep: an ordinary ``fit`` in its own folder, whose output goes to a log file."""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer

from lazy_lightning.callbacks.progress import progress_share
from lazy_lightning.cli.flow_cli import FlowCLI
from lazy_lightning.cli.user_messages import filter_warnings, user_message
from lazy_lightning.errors import UnwrittenError
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task, WorkerChannel
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.guarded_callback import is_out_of_memory
from lazy_lightning.modules.observation import Record, Sink
from lazy_lightning.runs.lock import HeldError
from lazy_lightning.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

LOG = "log.txt"
_REPORT_INTERVAL = 0.5  # seconds between progress messages
_HELD_INTERVAL = 5.0  # seconds before a run folder that another process holds is looked at again
_FAILED = [int(reason) for reason in StopReason if reason.failed]


def train(task: Task, channel: WorkerChannel) -> BatchResult:
    """Trains or resumes a batch and returns how it ended."""
    filter_warnings()
    folder = Path(task.folder)
    reporter = Reporter(task.key, channel)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / LOG).open("a", buffering=1, encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        return _fitted_when_free(task, folder, reporter)


def _fitted_when_free(task: Task, folder: Path, reporter: Reporter) -> BatchResult:
    """Trains a batch as soon as no other process does, such as a job that an earlier, killed sweep has submitted."""
    while True:
        try:
            return _fitted(task, folder, reporter)
        except HeldError as error:
            print(f"{error}; looked at again in {_HELD_INTERVAL:.0f} s")
            end = time.monotonic() + _HELD_INTERVAL
            while time.monotonic() < end:
                if reporter.channel.stopping:
                    return BatchResult(BatchStatus.STOPPED)
                time.sleep(min(1.0, _HELD_INTERVAL))
        if RunFolder(folder).ended:  # by the other process
            return BatchResult(BatchStatus.ENDED)


def _fitted(task: Task, folder: Path, reporter: Reporter) -> BatchResult:
    run = RunFolder(folder)
    try:
        cli = FlowCLI(["fit", "--config", task.config], folder=folder, callbacks=[reporter])
    except HeldError:
        raise
    except Exception as error:
        if run.ended and isinstance(error, UnwrittenError):
            return BatchResult(BatchStatus.ENDED, user_message(error) or str(error))
        if run.ended:  # all members have failed; the summary records the reason of each
            return BatchResult(BatchStatus.ENDED)
        traceback.print_exc()
        reason = user_message(error) or f"{type(error).__name__}: {error}"
        return BatchResult(BatchStatus.MEMORY if is_out_of_memory(error) else BatchStatus.FAILED, reason)
    if run.ended:
        return BatchResult(BatchStatus.ENDED)
    if reporter.stopped or cli.exit_code:
        return BatchResult(BatchStatus.STOPPED)
    return BatchResult(BatchStatus.FAILED, "it ended without a result and without an error: see its log.txt")


class Reporter(Sink):
    """Sink that sends the progress of a batch to the sweep and stops the batch when the sweep stops."""

    def __init__(self, key: str, channel: WorkerChannel) -> None:
        self.key, self.channel = key, channel
        self.stopped = False
        self._reported_at = -_REPORT_INTERVAL

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Sends progress between two bursts, and stops the trainer if the sweep is stopping."""
        if self.channel.stopping and not record.final:
            self.stopped = True
            trainer.should_stop = True
        if record.final or time.monotonic() - self._reported_at > _REPORT_INTERVAL:
            self._reported_at = time.monotonic()
            self.channel.put(self._progress_message(module, record))

    def _progress_message(self, module: Any, record: Record) -> ProgressMessage:
        reasons = record.columns["reason"]
        failed = sum(int((reasons == code).sum()) for code in _FAILED)
        return ProgressMessage(self.key, int((reasons != 0).sum()), failed, progress_share(module, record))
