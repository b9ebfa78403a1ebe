"""The lock of a folder that only one process, on any machine, may use at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lazy_lightning.errors import RunError
from lazy_lightning.runs.lease import Lease

LEASE_SUFFIX = ".lease"


class HeldError(RunError):
    """Another process holds the lock."""


@contextmanager
def held_lock(path: Path, busy: str) -> Iterator[None]:
    """Holds a file lock together with a lease, which other machines see, too.

    The operating system releases the lock of a process that dies; the lease of a process that has died on another
    machine is taken over once it has not changed for half a minute, see :mod:`lazy_lightning.runs.lease`.

    Args:
        path: the path of the lock file, in an existing folder.
        busy: the message of the error if another process holds the lock.

    Raises:
        HeldError: another process holds the lock.
        OSError: the file cannot be created.
    """
    lock, alone = FileLock(path), True
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HeldError(busy) from error
    except NotImplementedError:  # a file system without file locks, such as Lustre without the option flock
        alone = False
    try:
        lease = Lease(path.with_name(path.name + LEASE_SUFFIX), alone)
        holder = lease.acquire()
        if holder is not None:
            raise HeldError(f"{busy} (its lock is held on {holder})")
        try:
            yield
        finally:
            lease.release()
    finally:
        lock.release()
