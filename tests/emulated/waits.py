"""The record of host synchronisations: everything that makes the host wait for a CUDA device.

Those are reads of values (``item``, ``bool``, ``float``), copies to the host, copies from pageable host memory,
operations whose output shape depends on values (``nonzero``, boolean indices, ``unique``), and the status checks of
matrix decompositions.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_PACKAGE = "/lazy_lightning/"


@dataclass(frozen=True)
class Wait:
    """One synchronisation, with the stack frames that led to it, innermost first."""

    kind: str
    operation: str
    frames: tuple[tuple[str, int, str], ...]
    """File, line and function."""

    def __str__(self) -> str:
        lines = [f"{file}:{line} {function}" for file, line, function in self.frames if "/torch/" not in file]
        own = [line.split(_PACKAGE, 1)[1] for line in lines if _PACKAGE in line]
        where = " < ".join(own[:4]) or (lines[0] if lines else "a thread of autograd")
        return f"{self.kind} ({self.operation}) at {where}"


class HostWaitError(RuntimeError):
    """A synchronisation where none is allowed."""


_waits: list[Wait] = []
_forbidden = [0]
_paused = threading.local()


def note(kind: str, operation: str) -> None:
    """Records a synchronisation, or raises HostWaitError where none is allowed."""
    if getattr(_paused, "on", False):
        return
    wait = Wait(kind, operation, _frames())
    _waits.append(wait)
    if _forbidden[0]:
        raise HostWaitError(str(wait))


@contextlib.contextmanager
def forbidden() -> Iterator[None]:
    """Raises HostWaitError at the line that makes the host wait."""
    _forbidden[0] += 1
    try:
        yield
    finally:
        _forbidden[0] -= 1


@contextlib.contextmanager
def counted() -> Iterator[list[Wait]]:
    """The synchronisations inside the block; the list is filled at its end."""
    start, own = len(_waits), []
    try:
        yield own
    finally:
        own.extend(_waits[start:])


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """For reads of the test itself."""
    before = getattr(_paused, "on", False)
    _paused.on = True
    try:
        yield
    finally:
        _paused.on = before


def _frames(limit: int = 60) -> tuple[tuple[str, int, str], ...]:
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < limit:
        name = frame.f_code.co_filename
        if "/emulated/" not in name or "/emulated/test_" in name:
            found.append((name, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(found)
