"""Flushing denormal numbers to zero on the CPU.

The tails of the softhinge underflow gradually, and x86 processors compute with denormal numbers up to a
hundred times slower. The mode belongs to each thread and is inherited when a thread starts: it must be set
before torch starts its worker threads, that is before the first large operation.
"""

from __future__ import annotations

import torch


def flush_denormals() -> bool:
    """Flushes denormals in this thread and in the workers it starts from now on; True if all of them do.

    The command line calls this first of all. In a notebook call it right after the imports: workers that run
    already keep their mode, and then False is returned.
    """
    return torch.set_flush_denormal(True) and denormals_are_flushed()


def denormals_are_flushed() -> bool:
    """Whether every worker thread flushes, seen by halving a million denormals shared out among them."""
    tiny = torch.full((1_000_000,), 1e-310, dtype=torch.float64)
    return not bool((tiny * 0.5).any())
