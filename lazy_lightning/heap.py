"""Reuse of freed memory by the C library's heap.

glibc asks the system for each block above a threshold of 128 KiB to 32 MiB and returns it when it is freed. So an
evaluation that allocates activations of tens of MiB has their pages mapped and cleared each time, which takes up to a
fifth of a run's processor time. With larger thresholds freed blocks stay in the heap for the next evaluation.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_NEVER = -1  # free memory at the heap's end is not returned to the system
_LARGEST = 2**31 - 1  # bytes, all that mallopt takes: blocks below this come from the heap
_USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory(environment: Mapping[str, str] | None = None) -> bool:
    """Lets the heap of this process keep freed blocks for later ones; returns whether the C library has agreed.

    The command line and the workers of a sweep call this; in a notebook, call it before the first large operation. It
    does nothing and returns False where the C library is not glibc, or where the environment sets glibc's thresholds
    already, which count.

    Args:
        environment: the environment variables; None for those of the process.
    """
    given = os.environ if environment is None else environment
    if any(name in given for name in _USERS_OWN):
        return False
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _NEVER}
    return all(mallopt(ctypes.c_int(which), ctypes.c_int(value)) == 1 for which, value in wanted.items())


def free_bytes() -> int:
    """Returns the bytes that the heap keeps for later blocks; 0 where the C library is not glibc 2.33 or newer."""
    mallinfo = getattr(_c_library(), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo
    return int(mallinfo().fordblks)


class _Mallinfo(ctypes.Structure):
    """The structure ``mallinfo2`` of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if os.name == "posix" else None
