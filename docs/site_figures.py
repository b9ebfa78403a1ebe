"""A hook of MkDocs: every figure of a page links to its image at full size; those of several panels have a class."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

_ONE_PANEL = 1200
"""Pixels up to which a figure has one panel: reports draw a panel about 900 pixels wide."""
_IMAGE = re.compile(r'(?P<link><a [^>]*>)?(?P<image><img [^>]*src="(?P<source>[^":]+)"[^>]*>)(?P<end></a>)?')


def on_page_content(html: str, page: Any, config: Any, **_: Any) -> str:
    """Returns the page with each of its figures in a link."""
    folder = Path(config["docs_dir"]) / Path(page.file.src_uri).parent
    return _IMAGE.sub(lambda found: _linked(found, folder), html)


def _linked(found: re.Match[str], folder: Path) -> str:
    path = folder / found["source"]
    kind = ' class="several-panels"' if path.suffix == ".png" and width_of_png(path) > _ONE_PANEL else ""
    return f'<a{kind} href="{found["source"]}">{found["image"]}</a>'


def width_of_png(path: Path) -> int:
    """Returns the width of a PNG image in pixels, which its header has at bytes 16 to 20."""
    (width,) = struct.unpack(">I", path.read_bytes()[16:20])
    return int(width)
