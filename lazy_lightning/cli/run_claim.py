"""Reservation of run folders: a folder is created atomically, and removed again if the run is refused at its start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lazy_lightning.errors import LazyLightningError
from lazy_lightning.runs.lock import held_lock

_NOT_YET_A_RUN = {"config.yaml", "hparams.yaml"}
LOCK = ".training.lock"


@contextlib.contextmanager
def claimed_folders(trainer: Trainer) -> Iterator[None]:
    """Reserves a folder ``version_K`` for each logger that numbers its runs.

    Loggers find the next free number and create the folder later, so two runs that start at the same time would use
    the same folder. Here the folder is created immediately, which only one process can do. The folder of a run that is
    refused before its first observation is removed.

    Args:
        trainer: a trainer whose loggers have not determined their version yet.
    """
    made = [folder for logger in trainer.loggers if (folder := _claim(logger)) is not None]
    try:
        yield
    except LazyLightningError:
        for folder in made:
            _remove_unused(folder)
        raise


@contextlib.contextmanager
def locked_folder(folder: str | None) -> Iterator[None]:
    """Holds the lock of a run's folder during training, so that two processes never resume the same run.

    The operating system releases the lock of a process that dies.

    Raises:
        RunError: another process holds the lock.
    """
    if folder is None:
        yield
        return
    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with held_lock(path, f"the run in {folder} is being trained by another process: wait for its end, or stop it"):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the release, so that the lock of another process is never removed


def _claim(logger: object) -> Path | None:
    """Creates and returns a logger's folder; None for a logger of another kind, or one with a given version."""
    if not isinstance(logger, (TensorBoardLogger, CSVLogger)) or logger._version is not None:
        return None
    while True:
        folder = Path(logger.log_dir)
        try:
            folder.mkdir(parents=True)
            if isinstance(logger, CSVLogger):
                _ = logger.experiment  # created while the folder is empty, because it warns of any file in it
            return folder
        except FileExistsError:
            logger._version = None  # another process has created it first: try the next number


def _remove_unused(folder: Path) -> None:
    """Removes a folder that holds nothing but the configuration of a run that was refused."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    if found is not None and found <= _NOT_YET_A_RUN:
        for name in found:
            (folder / name).unlink()
        folder.rmdir()
