"""The arguments with which an object is being made, read by a base class so that a run can record them."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any


def constructor_arguments(made: object) -> dict[str, Any]:
    """The arguments of the outermost ``__init__`` that is running for an object: those of its own class.

    An ``__init__`` with ``*args`` or ``**kwargs`` passes them on, so the arguments of the next one, its defaults
    included, are merged in. To be called in the ``__init__`` of a base class. Values are those that the names have when
    the subclass calls ``super().__init__``. A wrapper around ``__init__`` or a ``__new__`` would hide the signature
    from parsers of command lines.
    """
    frames: list[FrameType] = []
    frame = inspect.currentframe()
    frame = None if frame is None else frame.f_back
    try:
        while frame is not None:
            if _initialises(frame, made):
                frames.append(frame)
            frame = frame.f_back
        found: dict[str, Any] = {}
        while frames:
            outer = frames.pop()
            found = _arguments(outer, passed_on=bool(frames)) | found
            if not outer.f_code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
                break
        return found
    finally:
        del frame, frames  # frames hold all that they refer to


def _initialises(frame: FrameType, made: object) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is made


def _arguments(frame: FrameType, passed_on: bool) -> dict[str, Any]:
    """The arguments of one ``__init__``; unnamed positional ones only where no other ``__init__`` names them."""
    _, positional, named, values = inspect.getargvalues(frame)
    count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
    found = {name: values[name] for name in frame.f_code.co_varnames[1:count] if name in values}
    if positional is not None and values[positional] and not passed_on:
        found[positional] = list(values[positional])
    if named is not None:
        found |= values[named]
    return found
