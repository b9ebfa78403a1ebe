"""Text from outside (names of folders, of parameters, of configurations) made harmless where it is shown or written.

Every place that shows such text uses one of these: :func:`printable` for ``print``, for errors and for pages (whose
templates escape), :func:`rich_text` for rich's tables and consoles, :func:`csv_text` for tables of a spreadsheet.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of control, format, surrogate, private, unassigned and line-separating characters."""
_FORMULA = ("=", "@", "+", "-", "\t", "\r", "\n")
"""A cell that begins with one of these is a formula to a spreadsheet."""


def printable(value: object) -> str:
    r"""The text of a value on one line, with control and invisible characters as escapes.

    >>> print(printable("a\x1b[31mred"))
    a\x1b[31mred
    >>> printable("√h α = 3")
    '√h α = 3'
    """
    return "".join(_visible(c) for c in str(value))


def rich_text(value: object, style: str = "") -> Text:
    """A value for rich's tables and consoles: square brackets are text, never markup.

    >>> rich_text("[/red]").plain
    '[/red]'
    """
    from rich.text import Text

    return Text(printable(value), style=style)


def csv_text(value: str) -> str:
    """A text cell that no spreadsheet takes for a formula: one that begins like a formula gets an apostrophe before it.

    >>> csv_text("=1+1"), csv_text("runs/version_0")
    ("'=1+1", 'runs/version_0')
    """
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def _visible(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
    if unicodedata.category(character) in _HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character
