"""Printing that cannot cost a run: the reader of a pipe may have gone, and a terminal may be lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console


class SafeConsole(Console):
    """rich's console, which would end the program where the reader of a pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Says nothing more."""
        self.quiet = True
        _silence_lost_streams()


def show(text: str, file: TextIO | None = None) -> bool:
    """Prints a line if there is still somebody to read it, and says whether there was."""
    return attempt(lambda: print(text, file=file or sys.stdout, flush=True))


def attempt(printing: Callable[[], object]) -> bool:
    """Calls something that prints; a stream that cannot be written any more is left alone from then on.

    Returns:
        Whether it has been printed.
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
    """Sends what a lost stream would still be given to nowhere: Python flushes it once more at the end, and fails."""
    for stream in (stream for stream in (sys.stdout, sys.stderr) if stream is not None):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect(stream)


def _redirect(stream: TextIO) -> None:
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # it was never a file, or is closed
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
    finally:
        os.close(nowhere)
