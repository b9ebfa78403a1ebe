"""The check that arguments of a constructor are the numbers and texts of its annotations, before they are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from lazy_lightning.errors import ConfigError

_LARGEST = 2**63
"""Of the integers of torch and NumPy."""
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "Mapping[str, Any]": "a mapping",
    "None": "null",
}
_LISTS = {
    f"{kind}[{item}{rest}]": item
    for item in ("int", "float", "str")
    for kind, rest in (("Sequence", ""), ("list", ""), ("tuple", ", ..."))
}


def check_arguments(owner: type, given: Mapping[str, Any]) -> None:
    """Checks the arguments of a constructor whose annotations are numbers, texts, lists of these, mappings, or null.

    Arguments with other annotations are not looked at. An integer is a number, ``True`` is none, and a path is a text.

    Args:
        owner: the class, whose ``__init__`` has string annotations such as ``float | None``.
        given: the arguments by name, such as ``locals()`` in ``__init__`` or ``vars(self)`` in ``__post_init__``.

    Raises:
        ConfigError: an argument is something else.

    >>> class Observer:
    ...     def __init__(self, samples: int | None = 3) -> None:
    ...         check_arguments(Observer, locals())
    >>> Observer("3")
    Traceback (most recent call last):
    ...
    lazy_lightning.errors.ConfigError: Observer got samples = '3', expected an integer or null
    """
    for name, annotation in owner.__init__.__annotations__.items():  # type: ignore[misc]
        kinds = [kind.strip() for kind in str(annotation).split("|")]
        if name in given and all(kind in _WORDS or kind in _LISTS for kind in kinds):
            value = given[name]
            if not any(_is(kind, value) for kind in kinds):
                expected = " or ".join(_words(kind) for kind in kinds)
                raise ConfigError(f"{owner.__name__} got {name} = {value!r:.60}, expected {expected}")


def _words(kind: str) -> str:
    item = _LISTS.get(kind)
    return _WORDS[kind] if item is None else f"a list of {_WORDS[item].split()[-1]}s"


def _is(kind: str, value: Any) -> bool:
    if kind == "None":
        return value is None
    item = _LISTS.get(kind)
    if item is not None:
        is_list = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
        return is_list and all(_is(item, one) for one in value)
    if kind == "str":
        return isinstance(value, (str, os.PathLike))
    if kind.startswith("Mapping"):
        return isinstance(value, Mapping)
    if kind == "int":
        number = _scalar(value)
        return isinstance(number, Integral) and not isinstance(number, bool) and -_LARGEST <= int(number) < _LARGEST
    return is_number(value)


def _scalar(value: Any) -> Any:
    """Returns the number that an array or tensor without axes holds; other values as they are."""
    return value.item() if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0 else value


def is_number(value: Any) -> TypeGuard[float]:
    """Returns whether a value is a real number that float64 can hold, NaN and infinity included; ``True`` is none.

    Arrays and tensors without axes are the numbers that they hold.

    >>> is_number(1), is_number(True), is_number("1"), is_number(10**400)
    (True, False, False, False)
    """
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
