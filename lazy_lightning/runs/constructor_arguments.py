"""Constructor arguments of an object, read by its base class so that a run can record them."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any


def constructor_arguments(instance: object) -> dict[str, Any]:
    """Returns the arguments of the outermost running ``__init__`` of an object, which is that of its own class.

    Call this in the ``__init__`` of a base class. An ``__init__`` with ``*args`` or ``**kwargs`` passes them on, so the
    arguments of the next ``__init__``, including its defaults, are merged in. The values are those that the names have
    when the subclass calls ``super().__init__``. The frames are inspected because a wrapper around ``__init__`` or a
    ``__new__`` would hide the signature from command-line parsers.
    """
    frames: list[FrameType] = []
    frame = inspect.currentframe()
    frame = None if frame is None else frame.f_back
    try:
        while frame is not None:
            if _initialises(frame, instance):
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
        del frame, frames  # a frame keeps every object alive that it refers to


def _initialises(frame: FrameType, instance: object) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is instance


def _arguments(frame: FrameType, passed_on: bool) -> dict[str, Any]:
    """Returns the arguments of one ``__init__``, with ``*args`` only if they are not passed on to another."""
    _, positional, named, values = inspect.getargvalues(frame)
    count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
    found = {name: values[name] for name in frame.f_code.co_varnames[1:count] if name in values}
    if positional is not None and values[positional] and not passed_on:
        found[positional] = list(values[positional])
    if named is not None:
        found |= values[named]
    return found
