"""The checkpoint of a run: one file, written atomically, from which the run resumes bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from lazy_lightning.argument_types import check_arguments
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
    """Callback that saves ``checkpoint.ckpt`` in the run's folder at intervals and at the end, also after a signal.

    The first checkpoint is saved after the first burst or mini-batch, the next ones each time the duration of the run
    has doubled, up to ``every_seconds`` apart. The interval is at least twenty times the duration of a save. After an
    error, or a second Ctrl-C, nothing is saved, because the state may be inconsistent, and the last file remains.

    The file loads with ``weights_only=True``. ``fit --resume RUN`` resumes in the run's folder, and
    ``fit --config RUN/config.yaml --ckpt_path RUN/checkpoint.ckpt`` in a new one.

    Args:
        every_seconds: the longest interval between checkpoints.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        check_arguments(RunCheckpoint, locals())
        if not every_seconds >= 0 or math.isinf(every_seconds):
            raise ConfigError(f"RunCheckpoint needs every_seconds >= 0 and finite, got {every_seconds}")
        self.every_seconds = every_seconds
        self._pace = Pace(every_seconds)
        self._stopped_within = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Starts the timer, and removes incomplete files of this run that a killed process has left."""
        self._pace.restart(at_once=True)
        self._stopped_within = False
        if trainer.log_dir is not None and trainer.is_global_zero:
            remove_stale_temporaries(Path(trainer.log_dir), _FILES)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves if the interval has passed, and before the Trainer counts an epoch in which it stops as completed.

        Nothing is saved between the batches of one step, whose accumulated gradients no checkpoint holds.
        """
        if pl_module.within_step:  # on all ranks
            return
        self._stopped_within = trainer.should_stop and not trainer.is_last_batch
        if pl_module.ranks.first(self._stopped_within or self._pace.is_due()):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Saves the checkpoint at the end of training."""
        if pl_module.follows_flow or not self._stopped_within:
            self.save(trainer)
        if trainer.log_dir is None:
            return
        path = Path(trainer.log_dir) / CHECKPOINT
        lost = path in pl_module.unwritten and path.is_file() and _has_ended(pl_module)
        if pl_module.ranks.first(lost):  # rank 0 writes
            # An older checkpoint next to the final results would be mistaken for the final state. Removing it may also
            # free enough space for another attempt.
            if trainer.is_global_zero:
                path.unlink()
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes the checkpoint atomically; a failure is reported and does not end the run."""
        if trainer.log_dir is not None:
            path = Path(trainer.log_dir) / CHECKPOINT
            module = cast("ObservableModule", trainer.lightning_module)
            write_python_config(trainer, module)
            with self._pace.measured(), warn_if_unwritten(module, path):
                trainer.save_checkpoint(path)


def _has_ended(module: ObservableModule) -> bool:
    return bool(module.reasons) and all(reason != StopReason.RUNNING for reason in module.reasons)
