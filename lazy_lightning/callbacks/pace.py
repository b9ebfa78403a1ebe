"""How often something is written while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 20
"""Writing takes at most one part in this many of a run's time, however long it takes once."""


class Pace:
    """Says when it is time to write again: soon after the start, then less and less often, up to an interval.

    The time between two writes is at least twenty times as long as the last one took, so that a run whose files have
    become large does not write after every burst.

    Args:
        every_seconds: the longest interval, unless writing takes longer than its share of it.
    """

    def __init__(self, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self.restart()

    def restart(self, *, at_once: bool = False) -> None:
        """Counts from now on; ``at_once``: something is due already."""
        self._started = self._written = time.monotonic()
        self._took = 0.0
        self._at_once = at_once

    def is_due(self) -> bool:
        """Whether to write now."""
        now = time.monotonic()
        interval = min(self.every_seconds, self._written - self._started) if self._at_once else self.every_seconds
        return now - self._written > max(interval, _SHARE * self._took)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around a write: notes how long it takes."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._written = time.monotonic()
            self._took = self._written - begin
