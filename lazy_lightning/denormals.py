"""Flushing of denormal numbers to zero on the CPU.

The tails of the softhinge underflow gradually, and x86 processors compute with denormal numbers up to a
hundred times slower. Each thread has its own mode and inherits it when it starts, so the mode must be set
before torch starts its worker threads, that is before the first large operation.
"""

from __future__ import annotations

import torch


def flush_denormals() -> bool:
    """Flushes denormals in this thread and in the worker threads that it starts later; returns True if all threads do.

    The command line calls this before any computation. In a notebook, call it right after the imports: worker threads
    that are already running keep their mode, and then the function returns False.
    """
    return torch.set_flush_denormal(True) and denormals_are_flushed()


def denormals_are_flushed() -> bool:
    """Returns whether every worker thread flushes, tested by halving a million denormals that they share."""
    tiny = torch.full((1_000_000,), 1e-310, dtype=torch.float64)
    return not bool((tiny * 0.5).any())
