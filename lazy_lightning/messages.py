"""Parser errors in one sentence."""

from __future__ import annotations

import re


def one_sentence(message: str) -> str:
    """The first cause in a jsonargparse message, without the dump of every type that was tried."""
    return re.sub(r"\s+", " ", message).strip()
