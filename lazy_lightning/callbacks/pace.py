"""Intervals between writes of a file during a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 20
"""The interval between writes is at least this many times the duration of the last write."""


class Pace:
    """Timer that determines when to write again: soon after the start, then in increasing intervals.

    The time between two writes is at least twenty times the duration of the last one, so that a run with large files
    does not write after every burst.

    Args:
        every_seconds: the longest interval, unless twenty times the duration of a write is longer.
    """

    def __init__(self, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self.restart()

    def restart(self, *, at_once: bool = False) -> None:
        """Restarts the timer of the writes.

        Args:
            at_once: whether the first write is due immediately and the intervals start short.
        """
        self._started = self._written = time.monotonic()
        self._took = 0.0
        self._at_once = at_once

    def is_due(self) -> bool:
        """Returns whether the next write is due."""
        now = time.monotonic()
        interval = min(self.every_seconds, self._written - self._started) if self._at_once else self.every_seconds
        return now - self._written > max(interval, _SHARE * self._took)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measures the duration of a write in a context."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._written = time.monotonic()
            self._took = self._written - begin
