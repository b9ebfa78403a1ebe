"""Extension of griffe: docstrings of this package, which use a few roles of Sphinx and doctests, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([^`<]+?)`")
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)
_TABLE = re.compile(r"^ *={3,} +={3,}.*(?:\n(?! *$).*)*", re.MULTILINE)


class Markdown(griffe.Extension):
    """Replaces roles by code, and fences doctests and tables of reStructuredText."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Converts the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Converts one docstring.

    >>> print(as_markdown("See :class:`~a.b.C`.\\n\\n>>> 1 + 1\\n2"))
    See `C`.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    text = _ROLE.sub(lambda role: f"`{role[2].rpartition('.')[2] if role[1] else role[2].lstrip('.')}`", text)
    text = _DOCTEST.sub(lambda block: f"{block[1]}```pycon\n{block[0]}\n{block[1]}```", text)
    return _TABLE.sub(lambda block: f"```text\n{block[0]}\n```", text)
