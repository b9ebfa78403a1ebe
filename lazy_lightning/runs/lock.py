"""The lock of a folder that only one process may use at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lazy_lightning.errors import RunError


@contextmanager
def held_lock(path: Path, busy: str) -> Iterator[None]:
    """Holds a file lock; the operating system releases the lock of a process that dies.

    Args:
        path: the path of the lock file, in an existing folder.
        busy: the message of the error if another process holds the lock.

    Raises:
        RunError: another process holds the lock.
        OSError: the file cannot be created.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(busy) from error
    try:
        yield
    finally:
        lock.release()
