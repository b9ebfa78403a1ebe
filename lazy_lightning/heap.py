"""Reuse of freed memory by the C library's heap.

glibc asks the system for each block above a threshold of 128 KiB to 32 MiB and returns it when it is freed. So an
evaluation that allocates activations of tens of MiB has their pages mapped and cleared each time, which takes up to a
fifth of a run's processor time. With larger thresholds freed blocks stay in the heap for the next evaluation.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT = 2**30  # bytes: free memory at the heap's end up to this is not returned to the system
_LARGEST = (2**30, 2**25)  # bytes: blocks below this come from the heap; the second before glibc 2.35
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
_TUNABLES = ("glibc.malloc.mmap_threshold", "glibc.malloc.trim_threshold", "glibc.malloc.mmap_max")
_STATM = Path("/proc/self/statm")


def keep_freed_memory(environment: Mapping[str, str] | None = None) -> bool:
    """Lets the heap of this process keep freed blocks for later ones; returns whether the C library has agreed.

    The command line and the workers of a sweep call this; in a notebook, call it before the first large operation. It
    does nothing and returns False where the C library is not glibc, or where the environment sets glibc's thresholds
    already, which count. Before glibc 2.35 the heap keeps blocks of up to 32 MiB alone. Nothing is gained where another
    allocator replaces glibc's, such as jemalloc by ``LD_PRELOAD``.

    An aligned block may not fit where one of the same size was freed, so the process can hold several times the memory
    that it uses at once: after blocks of 256 MiB, one at a time, up to 1 GiB (glibc 2.36).

    Args:
        environment: the environment variables; None for those of the process.
    """
    given = os.environ if environment is None else environment
    tunables = given.get("GLIBC_TUNABLES", "")
    if any(name in given for name in _VARIABLES) or any(name in tunables for name in _TUNABLES):
        return False
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None:
        return False

    def accepted(parameter: int, value: int) -> bool:
        return bool(mallopt(ctypes.c_int(parameter), ctypes.c_int(value)) == 1)

    larger = any(accepted(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return accepted(_TRIM_THRESHOLD, _KEPT) and larger


def free_bytes() -> int:
    """Returns the bytes that the heap keeps for later blocks; 0 where the C library is not glibc 2.33 or newer.

    At most the bytes of this process that are in memory: the system still counts pages as free that were allocated and
    never written.
    """
    mallinfo = getattr(_c_library(), "mallinfo2", None)
    if mallinfo is None or not _STATM.is_file():
        return 0
    mallinfo.restype = _Mallinfo
    resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return min(int(mallinfo().fordblks), resident)


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
