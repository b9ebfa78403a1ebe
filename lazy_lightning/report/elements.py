"""Pieces of a page: escaped text, tables, what opens on demand. Strings in, strings out."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd

from lazy_lightning.plain_text import html_text as escape

MOST_ROWS = 300
"""Of a table on the page; its file has them all."""

_PIXELS = 2.0
"""Of a picture, for one of the page's: sharp on fine screens and in print."""


def prose(text: str) -> str:
    """Escaped; a minus is one, and an equation stays on its line.

    >>> prose("slope -1 < 0 at h = 30")
    'slope −1 &lt; 0 at h\xa0=\xa030'
    """
    kept = escape(text).replace(" = ", "\xa0=\xa0").replace("√h α", "√h\xa0α")
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", kept)


def heading(level: int, text: str) -> str:
    """``<h2>``.

    >>> heading(2, "F < 1")
    '<h2>F &lt; 1</h2>'
    """
    return f"<h{level}>{prose(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """``<p>``, of a CSS class if one is given."""
    return f"<p{_kind(kind)}>{prose(text)}</p>"


def link(target: str, text: str) -> str:
    """To a file beside the page."""
    return f'<a href="{escape(quote(target))}">{escape(text)}</a>'


def details(summary: str, content: str) -> str:
    """``content``, which is HTML, behind a line that opens it."""
    return f"<details><summary>{prose(summary)}</summary>\n{content}\n</details>"


def code(text: str) -> str:
    """As it is written in a file. The box scrolls, so the keyboard must reach it."""
    lines = "\n".join(escape(line) for line in text.split("\n"))
    return f'<pre tabindex="0" role="group" aria-label="Configuration"><code>{lines}</code></pre>'


def pairs_table(pairs: Mapping[str, str], caption: str, target: str) -> str:
    """Quantities and their values.

    Args:
        pairs: value by name.
        caption: of the table, a link.
        target: to where on the page.
    """
    rows = [f'<tr><th scope="row">{prose(name)}</th><td>{prose(value)}</td></tr>' for name, value in pairs.items()]
    linked = f'<a href="#{escape(quote(target))}">{prose(caption)}</a>'
    body = "\n".join(rows)
    return f'<table class="pairs"><caption>{linked}</caption>\n<tbody>\n{body}\n</tbody></table>'


def frame_table(frame: pd.DataFrame, caption: str) -> str:
    """A table of numbers, to six digits; of a long one the first rows, and the caption says so."""
    if len(frame) > MOST_ROWS:
        caption = f"{caption} The first {MOST_ROWS} of {len(frame)} rows."
    rows = [
        f"<tr>{''.join(_cell(value) for value in row)}</tr>"
        for row in frame.head(MOST_ROWS).itertuples(index=False, name=None)
    ]
    head = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in frame.columns)
    body = "\n".join(rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table"><table><caption>{prose(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def picture(png: bytes, alternative: str) -> str:
    """A PNG inside of the page, which needs no other file, at half its size in pixels."""
    width, height = (round(side / _PIXELS) for side in struct.unpack(">II", png[16:24]))
    data = base64.b64encode(png).decode("ascii")
    # on a telephone a figure of several panels is looked at piece by piece: the box scrolls, the page does not
    size = f'width="{width}" height="{height}" style="min-width: min({width}px, 34rem)"'
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(alternative)}" {size}>'
    return f'<div class="picture" tabindex="0" role="group" aria-label="{escape(alternative)}">{image}</div>'


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "<td class=number>–</td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"<td class=number>{value:.6g}</td>"
    return f"<td>{escape(str(value))}</td>"


def _kind(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
