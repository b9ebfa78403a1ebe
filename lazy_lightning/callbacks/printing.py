"""Printing that does not end a run if the reader of a pipe has exited or the terminal is closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console


class SafeConsole(Console):
    """Console of rich that does not end the program when the reader of a pipe has exited."""

    def on_broken_pipe(self) -> None:
        """Suppresses all further output."""
        self.quiet = True
        _silence_lost_streams()


def show(text: str, file: TextIO | None = None) -> bool:
    """Prints a line if the stream can still be written, and returns whether it was printed."""
    return attempt(lambda: print(text, file=file or sys.stdout, flush=True))


def attempt(printing: Callable[[], object]) -> bool:
    """Calls a function that prints; later output to a stream that can no longer be written is discarded.

    Returns:
        Whether the output was printed.
    """
    try:
        printing()
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, OSError, ValueError) as error:  # ValueError: the stream is closed
        if isinstance(error, ValueError) and "closed" not in str(error):
            raise
        _silence_lost_streams()
        return False
    return True


def _silence_lost_streams() -> None:
    """Redirects lost streams to the null device, because Python flushes them again at exit, which would fail."""
    for stream in (stream for stream in (sys.stdout, sys.stderr) if stream is not None):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect(stream)


def _redirect(stream: TextIO) -> None:
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # the stream is not a file, or is closed
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, number)
    finally:
        os.close(null)
