"""Elements of a page: escaped text, tables and pictures, from the macros of ``elements.html.jinja``."""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lazy_lightning.plain_text import printable

MOST_ROWS = 300
"""Largest number of rows of a table on the page; the table's file has all rows."""

_PIXELS = 2.0
"""Pixels of a picture for each pixel of the page, for high-resolution screens and print."""


def prose(text: str) -> Markup:
    """Escapes a text, replaces hyphens before numbers by minus signs, and keeps equations on one line.

    >>> str(prose("slope -1 < 0 at h = 30"))
    'slope −1 &lt; 0 at h\xa0=\xa030'
    """
    kept = str(escape(printable(text))).replace(" = ", "\xa0=\xa0").replace("√h α", "√h\xa0α")
    return Markup(re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", kept))


def environment() -> Environment:
    """Returns the environment of this folder's templates, which escapes every value that is not markup."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"prose": prose, "url": quote}
    return found


_MACROS: Any = environment().get_template("elements.html.jinja").module


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    """The formatted value."""
    number: bool
    """Whether the value is a number."""


class Picture(NamedTuple):
    """A PNG in base64, and its size on the page."""

    data: str
    """The PNG in base64."""
    width: int
    """Width in pixels of the page."""
    height: int
    """Height in pixels of the page."""


def frame_table(frame: pd.DataFrame, caption: str) -> Markup:
    """Returns a table of numbers with six digits; only the first rows of a long one, with a note in the caption."""
    if len(frame) > MOST_ROWS:
        caption = f"{caption} The first {MOST_ROWS} of {len(frame)} rows."
    rows = [[_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False, name=None)]
    table: Markup = _MACROS.frame_table([str(column) for column in frame.columns], rows, caption)
    return table


def picture(png: bytes, alternative: str) -> Markup:
    """Returns a PNG embedded in the page at half its size in pixels; on narrow screens it scrolls."""
    width, height = (round(side / _PIXELS) for side in struct.unpack(">II", png[16:24]))
    image: Markup = _MACROS.picture(Picture(base64.b64encode(png).decode("ascii"), width, height), alternative)
    return image


def _cell(value: Any) -> Cell:
    if value is None or value != value:
        return Cell("–", True)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell(f"{value:.6g}", True)
    return Cell(str(value), False)
