"""A progress bar for long work, and silence for short."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

T = TypeVar("T")
_PATIENCE = 2.0  # seconds


def with_progress_bar(
    items: Iterable[T],
    total: int,
    what: str,
    progress: bool | None = None,
    *,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """The items, with a bar on the error stream: always, never, or (None) in a terminal after two seconds.

    ``size`` is the part of an item in ``total``.
    """
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield from items
        return
    begin, bar, task, done = time.monotonic(), None, None, 0
    try:
        for item in items:
            yield item
            done += size(item)
            if bar is None and (progress or time.monotonic() - begin > _PATIENCE):
                bar = _bar()
                bar.start()
                task = bar.add_task(what, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # A terminal is left clean; a log, which cannot be redrawn, keeps the last state.
    return Progress(*columns, console=Console(stderr=True), transient=sys.stderr.isatty())
