"""GracefulStop: Ctrl-C, SIGTERM and SIGHUP (a lost terminal) end a run between two bursts and write all results.

Under SLURM the signal that Lightning takes as the request to requeue a job (SIGUSR1 by default) does the same, and the
job is requeued at the end. Lightning's own handler would save a checkpoint within a burst, on each rank at another
time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Callback, Trainer

from lazy_lightning.callbacks.printing import show

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class GracefulStop(Callback):
    """Callback that stops the run after the present burst at the first signal; a second one interrupts immediately.

    A signal that reaches one of several ranks stops all of them after the same burst.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._requeues = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Installs the signal handlers, which only the main thread can do."""
        if threading.current_thread() is not threading.main_thread():
            return

        requeue = _requeue_signal(trainer)

        def handle(number: int, frame: FrameType | None) -> None:
            self.received = signal.Signals(number)
            if trainer.world_size > 1 or not pl_module.follows_flow:  # all ranks stop after the same burst or step
                pl_module.stop_requested = True
            else:
                trainer.should_stop = True
            if number == requeue:  # SLURM may send it again, and SIGTERM later
                self._requeues = True
                then = "then the job is requeued"
            else:
                then = "repeat to stop immediately"
                self._restore()
            if trainer.is_global_zero:
                show(f"\n{self.received.name}: stopping after this burst; {then}")

        self._requeues = False
        numbers = [*_SIGNALS, *([requeue] if requeue is not None else [])]
        self._previous = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, handle)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Restores the previous signal handlers."""
        self._restore()
        if _requeue_signal(trainer) is not None:  # the signal may have reached another rank only
            self._requeues = pl_module.ranks.any(self._requeues)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Requeues the job after everything has been written, because that may end the process."""
        if self._requeues and trainer.is_global_zero:
            _requeue_job()
        self._requeues = False

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restores the previous signal handlers."""
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}


def _requeue_signal(trainer: Trainer) -> signal.Signals | None:
    """Returns the signal at which a job under SLURM is requeued; None elsewhere."""
    environment = trainer._accelerator_connector.cluster_environment  # not public for a single device
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return environment.requeue_signal or getattr(signal, "SIGUSR1", None)


def _requeue_job() -> None:
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{job}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if job else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", name], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        show(f"error: the job {name} could not be requeued ({error}): submit it again", file=sys.stderr)
