"""Escaping of untrusted text (names of folders, of parameters, of configurations) before it is shown or written.

Code that shows such text uses one of these functions: :func:`printable` for ``print``, errors and pages (whose
templates escape HTML), :func:`rich_text` for rich's tables and consoles, :func:`csv_text` for CSV files.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of control, format, surrogate, private, unassigned and line-separating characters."""
_FORMULA = ("=", "@", "+", "-", "\t", "\r", "\n")
"""A spreadsheet interprets a cell that begins with one of these as a formula."""


def printable(value: object) -> str:
    r"""Returns the text of a value on one line, with control and invisible characters escaped.

    >>> print(printable("a\x1b[31mred"))
    a\x1b[31mred
    >>> printable("√h α = 3")
    '√h α = 3'
    """
    return "".join(_visible(c) for c in str(value))


def rich_text(value: object, style: str = "") -> Text:
    """Returns a value as text for rich's tables and consoles, in which square brackets are never markup.

    >>> rich_text("[/red]").plain
    '[/red]'
    """
    from rich.text import Text

    return Text(printable(value), style=style)


def csv_text(value: str) -> str:
    """Returns the text of a cell, with an apostrophe before it if a spreadsheet would interpret it as a formula.

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
