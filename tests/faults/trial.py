"""What one malformed file led to, and whether it should have."""

from __future__ import annotations

import contextlib
import enum
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Answer(enum.Enum):
    """How a malformed file was met."""

    REFUSED = "refused in one sentence"
    SAME = "accepted, with the content or the result of the sound file"
    OTHER = "accepted as another sound file"
    """A changed digit of a table, say, which nothing in the file can tell."""


SOUND = frozenset({Answer.REFUSED, Answer.SAME})
"""For files that cannot be mistaken for others: they have a checksum, or are wrong by their structure."""
REFUSED = frozenset({Answer.REFUSED})
ANY = frozenset(Answer)


class Trial(NamedTuple):
    """One malformed file, made and used by calling ``act``."""

    kind: str
    """What is malformed, for counts."""
    name: str
    act: Callable[[], Answer]
    """Raises :class:`WrongAnswerError` for what is wrong whatever the file was."""
    allowed: frozenset[Answer]


class WrongAnswerError(AssertionError):
    """The program ended, but not as it should have."""


def sentence(text: str) -> str:
    """The text of an error, if it is one sentence."""
    if not text.strip() or "\n" in text.strip() or "Traceback" in text or len(text) > 2600:
        raise WrongAnswerError(f"no sentence: {text[:300]!r}")
    return text


def told(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Runs the command line in this process.

    Returns:
        Whether it succeeded, and its warnings, or the warnings and the error.
    """
    from lazy_lightning.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    lines = [line for line in err.getvalue().splitlines() if line.startswith(("error: ", "warning: "))]
    if "Traceback" in err.getvalue() + out.getvalue():
        raise WrongAnswerError(f"a traceback was printed: {(err.getvalue() + out.getvalue()).strip()[-300:]!r}")
    errors = [sentence(line) for line in lines if line.startswith("error: ")]
    if code not in (0, 1, 2) or (code == 0) != (not errors) or len(errors) > 1:
        raise WrongAnswerError(f"exit code {code} with {errors}: {err.getvalue()[-300:]!r}")
    return code == 0, lines
