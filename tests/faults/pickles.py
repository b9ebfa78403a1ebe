"""Pickles that call something when they are loaded."""

from __future__ import annotations

import pickle
import random
from typing import Any


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> Any:
        return self.how


def calling(rng: random.Random) -> tuple[str, Any]:
    """An object whose pickle makes the file ``touched``, or calls the canary, when it is loaded."""
    import os

    import faults_canary  # type: ignore[import-not-found]  # there while a campaign lasts

    objects = {
        "os.mkdir": _Calls(os.mkdir, "touched"),
        "eval": _Calls(eval, "__import__('os').mkdir('touched')"),
        "exec": _Calls(exec, "open('touched', 'w')"),
        "canary": _Calls(faults_canary.effect),
        "canary class": _Calls(faults_canary.Canary, 1),
        "getattr": _Calls(getattr, faults_canary.Canary, "make"),
    }
    name = rng.choice(list(objects))
    return name, objects[name]


def pickles(rng: random.Random) -> tuple[str, bytes]:
    """A name, and the bytes."""
    name, thing = calling(rng)
    protocol = rng.choice((0, 2, 4))
    return f"pickle {protocol} of {name}", pickle.dumps(rng.choice((thing, {"x": thing}, [thing])), protocol)
