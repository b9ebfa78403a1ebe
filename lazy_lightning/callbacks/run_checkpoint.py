"""The run's checkpoint: one file, always whole, enough to go on to the bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from lazy_lightning.callbacks.pace import Pace
from lazy_lightning.callbacks.python_config import write_python_config
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.runs.atomic import remove_stale_temporaries
from lazy_lightning.runs.run_files import CHECKPOINT, CONFIG, CURVES, FAILURE, KERNELS, OUTPUTS, SUMMARY

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

_FILES = (CHECKPOINT, CONFIG, CURVES, FAILURE, KERNELS, OUTPUTS, SUMMARY)


class RunCheckpoint(Checkpoint):
    """Saves ``checkpoint.ckpt`` in the run's folder at intervals and at the end, also of an interrupted run.

    The first one is saved after the first burst or mini-batch, the next ones each time the run has become twice as
    long, up to ``every_seconds`` apart. Where a save takes long, the interval is at least twenty times that. After an
    error, or a second Ctrl-C, the state may be halfway through a step, and the last file stands.

    Loads with ``weights_only=True``; ``fit --resume RUN`` goes on in the run's folder, and
    ``fit --config RUN/config.yaml --ckpt_path RUN/checkpoint.ckpt`` in a new one.

    Args:
        every_seconds: the longest interval.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        if not every_seconds >= 0 or math.isinf(every_seconds):
            raise ConfigError(f"RunCheckpoint needs every_seconds >= 0 and finite, got {every_seconds}")
        self.every_seconds = every_seconds
        self._pace = Pace(every_seconds)
        self._stopped_within = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begins to count, and removes what a killed process has left of files of this run."""
        self._pace.restart(at_once=True)
        self._stopped_within = False
        if trainer.log_dir is not None and trainer.is_global_zero:
            remove_stale_temporaries(Path(trainer.log_dir), _FILES)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves when it is time, and before a Trainer takes an epoch for done because it was told to stop within it."""
        self._stopped_within = trainer.should_stop and not trainer.is_last_batch
        if pl_module.ranks.first(self._stopped_within or self._pace.is_due()):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Saves the end."""
        if pl_module.follows_flow or not self._stopped_within:
            self.save(trainer)
        if trainer.log_dir is None:
            return
        path = Path(trainer.log_dir) / CHECKPOINT
        lost = path in pl_module.unwritten and path.is_file() and _has_ended(pl_module)
        if pl_module.ranks.first(lost):  # rank 0 writes
            # An older state beside results of the end would be taken for that end; without it, there may be room.
            if trainer.is_global_zero:
                path.unlink()
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes the file, whole or not at all; a disk that refuses it costs this file alone."""
        if trainer.log_dir is not None:
            path = Path(trainer.log_dir) / CHECKPOINT
            module = cast("ObservableModule", trainer.lightning_module)
            write_python_config(trainer, module)
            with self._pace.measured(), warn_if_unwritten(module, path):
                trainer.save_checkpoint(path)


def _has_ended(module: ObservableModule) -> bool:
    return bool(module.reasons) and all(reason != StopReason.RUNNING for reason in module.reasons)
