"""Training of a batch on another machine: a function that Ray and SLURM call, and files in place of pipes.

The request to stop is a file in the folder of the sweep, and the progress of a batch a file in its run folder, because
a shared file system is all that the machines are required to have in common.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from lazy_lightning.denormals import flush_denormals
from lazy_lightning.errors import RunError
from lazy_lightning.experiments.worker_pool import BatchResult, BatchStatus, ProgressMessage, Task, Train
from lazy_lightning.heap import keep_freed_memory

PROGRESS = ".progress.json"
"""File in the run folder of a batch, present while it is being trained."""
_READ_INTERVAL = 2.0
"""Seconds between reads of the progress files."""
_STOP_INTERVAL = 1.0
"""Seconds between looks for the request to stop."""


@dataclass(frozen=True)
class RemoteBatch:
    """Function without arguments that trains a batch; it is sent to the other machine by its fields.

    Args:
        train: the function that trains a task; it is imported by its name.
        task: the batch, with absolute paths.
        stop: path of the file that requests a stop.
        folder: the working folder, to which relative paths in the configuration refer.
        imports: folders from which the user's packages are imported.
        threads: number of torch's threads.
    """

    train: Train
    task: Task
    stop: str
    folder: str
    imports: tuple[str, ...]
    threads: int

    def __call__(self) -> BatchResult:
        """Trains the batch, and returns how it ended."""
        keep_freed_memory()
        flush_denormals()
        torch.set_num_threads(self.threads)
        sys.path.extend(path for path in self.imports if path not in sys.path)
        channel = FileChannel(self.task, Path(self.stop))
        with _working_folder(self.folder), _stopping_at_usr2(channel):
            try:
                channel.put(ProgressMessage(self.task.key, 0, 0, 0.0))
                result = self.train(self.task, channel)
            finally:
                channel.close()
        if result.status == BatchStatus.STOPPED and not channel.stop_requested:
            return BatchResult(BatchStatus.PREEMPTED, "its job was stopped by a signal")
        return result


class FileChannel:
    """Connection of a batch to its sweep through files.

    Args:
        task: the batch.
        stop: path of the file that requests a stop.
    """

    def __init__(self, task: Task, stop: Path) -> None:
        self._path, self._stop = Path(task.folder, PROGRESS), stop
        self._found = self.preempted = False
        self._looked_at = -_STOP_INTERVAL

    def put(self, message: ProgressMessage) -> None:
        """Writes a progress message in place of the last one; a shared file system may be away for a while."""
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(message))
            temporary.replace(self._path)

    def close(self) -> None:
        """Removes the file of progress messages."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def stop_requested(self) -> bool:
        """Whether the sweep has requested a stop."""
        return self._found or self._stop.exists()

    @property
    def stopping(self) -> bool:
        """Whether the batch must stop after the present burst, by request of the sweep or a signal of the scheduler."""
        if not self._found and time.monotonic() - self._looked_at >= _STOP_INTERVAL:
            self._looked_at = time.monotonic()
            self._found = self._stop.exists()
        return self._found or self.preempted


class ProgressFiles:
    """Reader of the progress files of running batches."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._read_at = -_READ_INTERVAL

    def messages(self, tasks: Iterable[Task]) -> list[ProgressMessage]:
        """Returns the progress messages that have changed since the last call; the files are read every two seconds."""
        if time.monotonic() - self._read_at < _READ_INTERVAL:
            return []
        self._read_at = time.monotonic()
        return [message for task in tasks if (message := self._message(task)) is not None]

    def _message(self, task: Task) -> ProgressMessage | None:
        try:
            text = Path(task.folder, PROGRESS).read_text()
        except OSError:
            return None
        if text == self._last.get(task.key):
            return None
        self._last[task.key] = text
        return _parsed(text, task.key)


def started(task: Task) -> bool:
    """Returns whether a batch is being trained."""
    return Path(task.folder, PROGRESS).exists()


def clear(task: Task) -> None:
    """Removes the progress file that a killed process has left."""
    Path(task.folder, PROGRESS).unlink(missing_ok=True)


def import_folders() -> tuple[str, ...]:
    """Returns the folders on the import path that do not belong to the Python installation, as absolute paths."""
    installed = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    found = [Path(entry or ".").resolve() for entry in sys.path]
    own = (path for path in found if path.is_dir() and not installed & {path, *path.parents})
    return tuple(dict.fromkeys(str(path) for path in own))


def _parsed(text: str, key: str) -> ProgressMessage | None:
    """Returns the message of a progress file; None if the file is incomplete."""
    try:
        _, done, failed, share = json.loads(text)
        return ProgressMessage(key, int(done), int(failed), float(share))
    except (ValueError, TypeError):
        return None


@contextlib.contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    """Context with another working folder.

    Raises:
        RunError: this machine does not have the folder.
    """
    try:
        before = os.getcwd()  # noqa: PTH109  # as os.chdir takes it
    except FileNotFoundError:
        before = os.sep
    try:
        os.chdir(folder)
    except OSError as error:
        raise RunError(
            f"{os.uname().nodename} has no folder {folder}: give the command in a folder that all machines share"
        ) from error
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _stopping_at_usr2(channel: FileChannel) -> Iterator[None]:
    """Context in which SIGUSR2, sent by SLURM before a time limit or a preemption, stops the batch after its burst."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        channel.preempted = True

    before: Any = signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
