"""What the executors of other machines share: the working folder, the import path, and the request to stop."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

from lazy_lightning.experiments.remote_batch import RemoteBatch, clear, import_folders
from lazy_lightning.experiments.worker_pool import Task, Train


class Submission:
    """Makes the functions that other machines call, and requests them to stop.

    Args:
        train: the function that trains a task; it is imported by its name.
        folder: the folder of the sweep.
        threads: number of torch's threads of a batch.
    """

    def __init__(self, train: Train, folder: Path, threads: int) -> None:
        self._train, self._threads = train, threads
        # A name of its own for each command, because workers of an earlier command may still have to stop.
        self._stop = folder.resolve() / f".stop-{uuid.uuid4().hex[:12]}"

    @staticmethod
    def imports() -> tuple[str, ...]:
        """Returns the folders from which the user's packages are imported."""
        return import_folders()

    def batch(self, task: Task) -> RemoteBatch:
        """Returns the function that trains a batch on any machine."""
        config, folder = str(Path(task.config).resolve()), str(Path(task.folder).resolve())
        placed = replace(task, config=config, folder=folder)
        clear(placed)
        here = str(Path.cwd())
        return RemoteBatch(self._train, placed, str(self._stop), here, self.imports(), self._threads)

    def stop(self) -> None:
        """Requests all batches of this command to stop after their present bursts."""
        self._stop.touch()

    def close(self) -> None:
        """Removes the request to stop, after all batches have ended."""
        self._stop.unlink(missing_ok=True)
