"""Code that must never make the host wait for a CUDA device."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def no_device_waits() -> Iterator[None]:
    """Raises RuntimeError at each operation that synchronises the host with the device; the mode is always reset.

    torch warns that the mode does not detect all of them: it does detect reads of values, copies to the host, and
    operations whose output shape depends on values.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
