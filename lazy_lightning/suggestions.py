"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """``: did you mean X?``, or nothing if no known name is near.

    >>> suggestion("alhpa", ["alpha", "seeds"])
    ': did you mean alpha?'
    """
    parent, _, leaf = wrong.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = difflib.get_close_matches(leaf, list(siblings), n=1, cutoff=0.6)
    return f": did you mean {siblings[near[0]]}?" if near else ""
