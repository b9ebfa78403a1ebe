"""Suggestions of known names for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Returns ``: did you mean X?`` for the closest known name, or an empty string if none is similar.

    >>> suggestion("alhpa", ["alpha", "seeds"])
    ': did you mean alpha?'
    """
    parent, _, leaf = wrong.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = difflib.get_close_matches(leaf, list(siblings), n=1, cutoff=0.6)
    return f": did you mean {siblings[near[0]]}?" if near else ""
