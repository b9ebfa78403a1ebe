"""Ctrl-C, SIGTERM and SIGHUP (a lost terminal) end a run between two bursts, with everything written."""

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
    """The first signal lets the present burst finish and stops; a second one interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Takes the signals over; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.received = signal.Signals(number)
            if trainer.world_size > 1:  # the others must stop at the same burst
                pl_module.stop_requested = True
            else:
                trainer.should_stop = True
            self._restore()
            if not trainer.is_global_zero:
                return
            show(f"\n{self.received.name}: stopping after this burst; once more to stop at once")

        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, handle)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Gives the signals back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Gives the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}
