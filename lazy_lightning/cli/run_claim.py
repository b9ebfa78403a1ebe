"""The folder of a run is made before another process can take it, and taken back if the run is refused at once."""

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
    """Claims a folder ``version_K`` for each logger that numbers its runs by itself.

    Loggers look for the next free number and make the folder later, so two runs that start together would take the
    same. Here the folder is made at once, which one process alone can do. A run that is refused before it has observed
    anything leaves no folder.

    Args:
        trainer: whose loggers have not been asked for their version yet.
    """
    made = [folder for logger in trainer.loggers if (folder := _claim(logger)) is not None]
    try:
        yield
    except LazyLightningError:
        for folder in made:
            _take_back(folder)
        raise


@contextlib.contextmanager
def locked_folder(folder: str | None) -> Iterator[None]:
    """Holds the lock of a run's folder while it trains, so that two processes never go on with the same run.

    A process that dies gives its lock back.

    Raises:
        RunError: another process holds it.
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
            path.unlink(missing_ok=True)  # while it is held, so that nobody else's is removed


def _claim(logger: object) -> Path | None:
    """The folder made; None for a logger of another kind, or one whose version was given."""
    if not isinstance(logger, (TensorBoardLogger, CSVLogger)) or logger._version is not None:
        return None
    while True:
        folder = Path(logger.log_dir)
        try:
            folder.mkdir(parents=True)
            if isinstance(logger, CSVLogger):
                _ = logger.experiment  # made while the folder is empty: it warns of any file in it
            return folder
        except FileExistsError:
            logger._version = None  # another process was faster: the next number


def _take_back(folder: Path) -> None:
    """Removes a folder that holds nothing but the configuration of a run that was refused."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    if found is not None and found <= _NOT_YET_A_RUN:
        for name in found:
            (folder / name).unlink()
        folder.rmdir()
