"""One batch of a sweep: an ordinary ``fit`` in a folder of its own, with its output in a log."""

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
from lazy_lightning.guarded import is_out_of_memory
from lazy_lightning.modules.observation import Record, Sink
from lazy_lightning.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

LOG = "log.txt"
_EVERY = 0.5  # seconds between news
_FAILED = [int(reason) for reason in StopReason if reason.failed]


def train(task: Task, channel: WorkerChannel) -> BatchResult:
    """Trains the batch, or goes on with it, and says how it ended."""
    filter_warnings()
    folder = Path(task.folder)
    reporter = Reporter(task.key, channel)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / LOG).open("a", buffering=1, encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        return _fitted(task, folder, reporter)


def _fitted(task: Task, folder: Path, reporter: Reporter) -> BatchResult:
    run = RunFolder(folder)
    try:
        cli = FlowCLI(["fit", "--config", task.config], folder=folder, callbacks=[reporter])
    except Exception as error:
        if run.ended and isinstance(error, UnwrittenError):
            return BatchResult(BatchStatus.ENDED, user_message(error) or str(error))
        if run.ended:  # all members have failed, and the summary says of each why
            return BatchResult(BatchStatus.ENDED)
        traceback.print_exc()
        reason = user_message(error) or f"{type(error).__name__}: {error}"
        return BatchResult(BatchStatus.MEMORY if is_out_of_memory(error) else BatchStatus.FAILED, reason)
    if run.ended:
        return BatchResult(BatchStatus.ENDED)
    if reporter.stopped or cli.exit_code:
        return BatchResult(BatchStatus.STOPPED)
    return BatchResult(BatchStatus.FAILED, "it ended without a result, though nothing went wrong: see its log.txt")


class Reporter(Sink):
    """Tells the sweep how far the batch is, and stops it when the sweep is to stop."""

    def __init__(self, key: str, channel: WorkerChannel) -> None:
        self.key, self.channel = key, channel
        self.stopped = False
        self._reported_at = -_EVERY

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Between two bursts."""
        if self.channel.stopping and not record.final:
            self.stopped = True
            trainer.should_stop = True
        if record.final or time.monotonic() - self._reported_at > _EVERY:
            self._reported_at = time.monotonic()
            self.channel.put(self._news(module, record))

    def _news(self, module: Any, record: Record) -> ProgressMessage:
        reasons = record.columns["reason"]
        failed = sum(int((reasons == code).sum()) for code in _FAILED)
        return ProgressMessage(self.key, int((reasons != 0).sum()), failed, progress_share(module, record))
