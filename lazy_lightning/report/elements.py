"""Pieces of a page: escaped text, tables and pictures, from the macros of ``elements.html.jinja``."""

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
"""Of a table on the page; its file has them all."""

_PIXELS = 2.0
"""Of a picture, for one of the page's: sharp on fine screens and in print."""


def prose(text: str) -> Markup:
    """Escaped; a minus is one, and an equation stays on its line.

    >>> str(prose("slope -1 < 0 at h = 30"))
    'slope −1 &lt; 0 at h\xa0=\xa030'
    """
    kept = str(escape(printable(text))).replace(" = ", "\xa0=\xa0").replace("√h α", "√h\xa0α")
    return Markup(re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", kept))


def environment() -> Environment:
    """The templates of this folder; every value that is not markup already is made printable, then escaped."""
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
    """Of a table."""

    text: str
    number: bool


class Picture(NamedTuple):
    """A PNG as text, and its size on the page."""

    data: str
    width: int
    height: int


def frame_table(frame: pd.DataFrame, caption: str) -> Markup:
    """A table of numbers, to six digits; of a long one the first rows, and the caption says so."""
    if len(frame) > MOST_ROWS:
        caption = f"{caption} The first {MOST_ROWS} of {len(frame)} rows."
    rows = [[_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False, name=None)]
    table: Markup = _MACROS.frame_table([str(column) for column in frame.columns], rows, caption)
    return table


def picture(png: bytes, alternative: str) -> Markup:
    """A PNG inside of the page, which needs no other file, at half its size in pixels; a narrow screen scrolls it."""
    width, height = (round(side / _PIXELS) for side in struct.unpack(">II", png[16:24]))
    image: Markup = _MACROS.picture(Picture(base64.b64encode(png).decode("ascii"), width, height), alternative)
    return image


def _cell(value: Any) -> Cell:
    if value is None or value != value:
        return Cell("–", True)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell(f"{value:.6g}", True)
    return Cell(str(value), False)
