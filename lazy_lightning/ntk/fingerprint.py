"""What a network's function depends on besides the numbers in its parameters, as a value that can be compared later."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_TRUSTED = sys.stdlib_module_names - {"__main__"} | {"torch", "torchvision", "lazy_lightning", "numpy"}
"""Packages whose own code and globals are taken to stay as they are."""
_DEEPEST, _LONGEST, _LARGEST_ARRAY = 30, 20000, 1 << 16
_SCALARS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, Enum, slice)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
_OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes of every module, which are compared by their meaning."""


class Identity:
    """An object compared by identity and not kept alive: once it is gone it equals nothing, so an id that is used
    again for another object is not mistaken for it.

    >>> class Thing: pass
    >>> one = Thing()
    >>> Identity(one) == Identity(one), Identity(one) == Identity(Thing())
    (True, False)
    """

    __slots__ = ("_hash", "_of")

    def __init__(self, of: Any) -> None:
        self._of, self._hash = weakref.ref(of), id(of)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._of()
        return mine is not None and isinstance(other, Identity) and other._of() is mine


@dataclass
class _Reader:
    """Walks over what a network is made of."""

    complete: bool = True
    """Whether everything that was met could be compared."""
    _seen: dict[int, int] = field(default_factory=dict)
    _alive: list[Any] = field(default_factory=list)

    def module(self, module: nn.Module, depth: int) -> Hashable:
        """One module without its children: code, hooks, flags, buffers and attributes."""
        own = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
        return (
            type(module).__qualname__,
            module.training,
            module.extra_repr(),
            self.value(type(module), depth),
            tuple(self.value(tuple(getattr(module, name).values()), depth) for name in _HOOKS),
            tuple((name, p is not None and p.requires_grad) for name, p in module._parameters.items()),
            self.value(module._buffers, depth),
            self.value(own, depth),
        )

    def value(self, value: Any, depth: int) -> Hashable:
        """Anything that a module, a function or an object holds."""
        if isinstance(value, _SCALARS):
            return type(value).__name__, repr(value)
        if id(value) in self._seen:
            return "seen", self._seen[id(value)]
        if depth > _DEEPEST or len(self._seen) > _LONGEST:
            return self._opaque(value)
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)  # so that no id is met twice while this lasts
        return self._composite(value, depth + 1)

    def _composite(self, value: Any, depth: int) -> Hashable:
        if isinstance(value, Tensor):
            return Identity(value), None if value.is_inference() else value._version
        if isinstance(value, nn.Module):
            return self._network(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return type(value).__name__, tuple(self.value(part, depth) for part in value)
        if isinstance(value, Mapping):
            return "mapping", tuple((self.value(k, depth), self.value(v, depth)) for k, v in value.items())
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, types.MethodType):
            return self.value(value.__self__, depth), self.value(value.__func__, depth)
        if isinstance(value, functools.partial):
            return tuple(self.value(part, depth) for part in (value.func, value.args, value.keywords))
        if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.nbytes <= _LARGEST_ARRAY:
            return value.shape, value.dtype.str, value.tobytes()
        if isinstance(value, type):
            return self._class(value, depth)
        return self._object(value, depth)

    def _network(self, module: nn.Module, depth: int) -> Hashable:
        """A module with its children."""
        children = tuple((name, child is not None and self.value(child, 0)) for name, child in module._modules.items())
        return Identity(module), self.module(module, depth), children

    def _function(self, function: types.FunctionType, depth: int) -> Hashable:
        """Its code, and what it reads: defaults, enclosing variables, globals."""
        code: tuple[Hashable, ...] = (Identity(function), Identity(function.__code__))
        if _trusted(function.__module__):
            held: Any = (function.__closure__ and [_content(cell) for cell in function.__closure__], None)
        else:
            names = set(_names(function.__code__))
            read = {name: function.__globals__[name] for name in sorted(names & set(function.__globals__))}
            held = (
                function.__defaults__,
                function.__kwdefaults__,
                [_content(cell) for cell in function.__closure__ or ()],
                {name: _read_of(value, names) for name, value in read.items()},
            )
        return code, self.value(held, depth)

    def _class(self, kind: type, depth: int) -> Hashable:
        """What classes outside of trusted packages define."""
        own = [base for base in kind.__mro__ if not _trusted(base.__module__)]
        return (
            Identity(kind),
            Identity(getattr(kind, "forward", kind)),
            self.value([_attributes(b) for b in own], depth),
        )

    def _object(self, value: Any, depth: int) -> Hashable:
        if isinstance(value, types.ModuleType | types.BuiltinFunctionType | property | classmethod | staticmethod):
            return _identity(value)
        if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            return value.__name__  # of a class: where its instances hold their slots
        if isinstance(value, weakref.ReferenceType):
            return self.value(value(), depth)
        inside = getattr(value, "__dict__", None)
        if inside is None:
            return self._opaque(value)
        return _identity(value), self.value(type(value), depth), self.value(dict(inside), depth)

    def _opaque(self, value: Any) -> Hashable:
        self.complete = False
        return type(value).__qualname__


def fingerprint(template: nn.Module) -> tuple[Hashable, bool]:
    """What the function of a network depends on besides the numbers in its parameters, and whether that is all of it.

    Compared are, for every module: the class and its code, a ``forward`` set on the instance, ``training``, hooks (the
    global ones too), ``requires_grad`` of the parameters, buffers (by identity and by their count of in-place changes),
    ``extra_repr`` and all other attributes; numbers and words by value, containers and plain objects by what they hold.
    Of functions: code, defaults, enclosing variables, and the globals that they name, so far as they are defined
    outside of torch and this package. The second result is False where something could not be looked into (an object
    without ``__dict__``, or too many of them). The network is not kept alive.
    """
    reader = _Reader()
    hooks = tuple(tuple(getattr(torch_module, name).values()) for name in _GLOBAL_HOOKS)
    return (reader.value(hooks, 0), reader.value(template, 0)), reader.complete


def _attributes(kind: type) -> dict[str, Any]:
    """The attributes of a class itself, without those that Python adds."""
    python = ("_abc_impl", "__slots__")
    own = {name: value for name, value in vars(kind).items() if not name.startswith("__") or callable(value)}
    return {name: _unwrapped(value) for name, value in own.items() if name not in python}


def _unwrapped(value: Any) -> Any:
    if isinstance(value, property):
        return value.fget
    return value.__func__ if isinstance(value, classmethod | staticmethod) else value


def _read_of(value: Any, names: set[str]) -> Any:
    """The part of a user's module that is read from it, under the names that occur in the code."""
    if isinstance(value, types.ModuleType) and not _trusted(value.__name__):
        return {name: vars(value)[name] for name in sorted(names & set(vars(value)))}
    return value


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _trusted(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in _TRUSTED


def _identity(value: Any) -> Identity | None:
    """None for what cannot be referred to without keeping it alive."""
    try:
        return Identity(value)
    except TypeError:
        return None
