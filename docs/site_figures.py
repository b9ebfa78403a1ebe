"""A hook of MkDocs: every figure of a page links to its image at full size; those of several panels have a class."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

_WIDE = 1.9
"""Width over height from which an image has several panels side by side."""
_IMAGE = re.compile(r'(?P<link><a [^>]*>)?(?P<image><img [^>]*src="(?P<source>[^":]+)"[^>]*>)(?P<end></a>)?')


def on_page_content(html: str, page: Any, config: Any, **_: Any) -> str:
    """Returns the page with its figures in links."""
    folder = Path(config["docs_dir"]) / Path(page.file.src_uri).parent
    return _IMAGE.sub(lambda found: _linked(found, folder), html)


def _linked(found: re.Match[str], folder: Path) -> str:
    path = folder / found["source"]
    kind = ' class="several-panels"' if path.suffix == ".png" and aspect_ratio(path) > _WIDE else ""
    return f'<a{kind} href="{found["source"]}">{found["image"]}</a>'


def aspect_ratio(path: Path) -> float:
    """Returns the width over the height of a PNG image, which its header has at bytes 16 to 24."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return float(width / height)
