"""GracefulStop: Ctrl-C, SIGTERM and SIGHUP (a lost terminal) end a run between two bursts and write all results."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, Trainer

from lazy_lightning.callbacks.printing import show

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class GracefulStop(Callback):
    """Callback that stops the run after the present burst at the first signal; a second one interrupts immediately."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Installs the signal handlers, which only the main thread can do."""
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.received = signal.Signals(number)
            if trainer.world_size > 1:  # all ranks must stop after the same burst
                pl_module.stop_requested = True
            else:
                trainer.should_stop = True
            self._restore()
            if not trainer.is_global_zero:
                return
            show(f"\n{self.received.name}: stopping after this burst; repeat to stop immediately")

        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, handle)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Restores the previous signal handlers."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restores the previous signal handlers."""
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}
