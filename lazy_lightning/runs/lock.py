"""The lock of a folder that one process at a time may work in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lazy_lightning.errors import RunError


@contextmanager
def held_lock(path: Path, busy: str) -> Iterator[None]:
    """Holds the lock of this file; the lock of a process that has died is gone with it.

    Args:
        path: of the file, in a folder that is there.
        busy: the sentence if another process holds it.

    Raises:
        RunError: another process holds it.
        OSError: the file cannot be made.
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
