"""The run's checkpoint: one file, always whole, enough to go on to the bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from lazy_lightning.atomic import written_atomically
from lazy_lightning.run_files import CHECKPOINT

if TYPE_CHECKING:
    from lazy_lightning.modules.observed_module import ObservedModule


class RunCheckpoint(Checkpoint):
    """Saves ``checkpoint.ckpt`` in the run's folder at intervals and at the end, also of an interrupted run.

    After an error, or a second Ctrl-C, the state may be halfway through a step, and the last file stands.

    Loads with ``weights_only=True``; go on with ``fit --config RUN/config.yaml --ckpt_path RUN/checkpoint.ckpt``.

    Args:
        every_seconds: the interval.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        self.every_seconds = every_seconds
        self._saved = time.monotonic()
        self._stopped_within = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves when it is time, and before a Trainer takes an epoch for done because it was told to stop within it."""
        self._stopped_within = trainer.should_stop and not trainer.is_last_batch
        if self._stopped_within or time.monotonic() - self._saved > self.every_seconds:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: ObservedModule) -> None:  # type: ignore[override]
        """Saves the end."""
        if pl_module.follows_flow or not self._stopped_within:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes the file, whole or not at all."""
        self._saved = time.monotonic()
        if trainer.log_dir is not None:
            with written_atomically(Path(trainer.log_dir) / CHECKPOINT) as temporary:
                trainer.save_checkpoint(temporary)
