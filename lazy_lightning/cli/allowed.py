"""Checks which classes and functions a configuration may name, after parsing and before any of them is called.

A configuration is code: a ``class_path`` imports a module, and importing runs it. This module ensures that nothing
else is run: a class must derive from the class in its argument's annotation (a network from ``nn.Module``, a loss from
``Loss``, ...), and a function must be annotated to return that class. Where the annotation names no class, the class
must derive from one of the bases in :func:`known_bases`. The same rules hold inside of ``init_args``, ``dict_kwargs``
and lists, for every subcommand and for the stored ``config.yaml`` of a run. The parser accepts null for any argument;
here null is refused where the annotation does not include it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lazy_lightning.cli import messages
from lazy_lightning.errors import ConfigError

_PLAIN = (object, type, str, int, float, bool, complex, bytes, type(None))
_CONTAINERS = (list, tuple, set, frozenset, dict)


@functools.cache
def known_bases() -> tuple[type, ...]:
    """Returns the allowed base classes for an argument whose annotation names no class."""
    from pytorch_lightning import Callback, LightningDataModule
    from pytorch_lightning.accelerators import Accelerator
    from pytorch_lightning.loggers import Logger
    from pytorch_lightning.plugins import LayerSync, Precision
    from pytorch_lightning.profilers import Profiler
    from pytorch_lightning.strategies import Strategy
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Dataset, Sampler

    from lazy_lightning.objective.losses import Loss

    lightning = (LightningDataModule, Callback, Logger, Profiler, Strategy, Accelerator)
    plugins = (Precision, LayerSync)
    return (nn.Module, Loss, torch.optim.Optimizer, LRScheduler, Dataset, Sampler, *lightning, *plugins)


@dataclass(frozen=True)
class Expected:
    """The values that an argument accepts, derived from its annotation."""

    classes: tuple[type, ...] = ()
    """The classes named in the annotation, including the return class of a callable."""
    default: Any = None
    """The default value of the argument, which is not checked because it comes from code."""
    without_null: str | None = None
    """The expected value in words, used if null is given; None if null is allowed or the annotation is unclear."""

    @property
    def bases(self) -> tuple[type, ...]:
        """The classes of which a given class must be a subclass."""
        if not self.classes:
            return known_bases()
        return (*self.classes, nn.Module) if torch.Tensor in self.classes else self.classes

    def __str__(self) -> str:
        if not self.classes:
            return "network, loss, optimizer, scheduler, data set, callback or logger"
        return " or ".join(dict.fromkeys(base.__name__ for base in self.classes))


def check_classes(config: Any, trainer: type) -> None:
    """Checks that every class and function in a parsed configuration is allowed for its argument.

    Args:
        config: the parsed configuration of one subcommand, before anything is built.
        trainer: the class whose arguments are the values of ``trainer``.

    Raises:
        ConfigError: one is not allowed; the message names the key, the class, and the expected classes. Nothing has
            been called.
    """
    from pytorch_lightning import LightningDataModule, LightningModule

    roots = {"model": Expected((LightningModule,)), "data": Expected((LightningDataModule,))}
    for name, value in _items(config):
        if name == "config":  # the paths of the files that were read
            continue
        if name == "trainer" and _is_mapping(value):
            for key, part in _items(value):
                _check(part, expected_of(trainer, key), f"trainer.{key}")
        else:
            _check(value, roots.get(name, Expected()), name)


def expected_of(target: Any, argument: str) -> Expected:
    """Returns the values that an argument of a class or a function accepts."""
    constructors = (
        [vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base)]
        if inspect.isclass(target)
        else [target]
    )
    for constructor in constructors:  # a keyword that is passed on by ``**options`` is a parameter of a base class
        try:
            parameter = inspect.signature(constructor).parameters.get(argument)
        except (TypeError, ValueError):
            continue
        if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
            continue
        hint = _resolved(constructor, argument, parameter.annotation)
        required = parameter.default is parameter.empty  # the parser then uses null for a missing value
        words = None if required else _words_without_null(hint)
        return Expected(tuple(dict.fromkeys(_classes(hint))), parameter.default, words)
    return Expected()


# ---------------------------------------------------------------------- walking the configuration


def _check(value: Any, expected: Expected, key: str) -> None:
    if value is expected.default:
        return
    if value is None and expected.without_null is not None:
        raise ConfigError(f"{key} is null, expected {expected.without_null}: leave it out for its default")
    if _is_mapping(value):
        _check_mapping(value, expected, key)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            _check(part, expected, key)
    elif (callable(value) or isinstance(value, types.ModuleType)) and not isinstance(value, os.PathLike):
        _check_reference(value, expected, key)


def _check_mapping(value: Any, expected: Expected, key: str) -> None:
    content = dict(_items(value))
    path = content.pop("class_path", None)
    if path is None:
        owners = [base for base in expected.classes if base not in _CONTAINERS]
        for name, part in content.items():  # the arguments of a dataclass are given without its class_path
            inner = next((found for base in owners if (found := expected_of(base, str(name))) != Expected()), expected)
            _check(part, inner, f"{key}.{name}")
        return
    target = imported(path, key)
    _check_called(target, expected, key, str(path))
    for group in ("init_args", "dict_kwargs"):
        arguments = content.pop(group, None)
        if _is_mapping(arguments):
            for name, part in _items(arguments):
                _check(part, expected_of(target, str(name)), f"{key}.{name}")
        else:
            _check(arguments, Expected(), key)
    for name, part in content.items():
        _check(part, Expected(), f"{key}.{name}")


def _check_called(target: Any, expected: Expected, key: str, path: str) -> None:
    """Checks the object under ``class_path``, which will be called with ``init_args``."""
    if inspect.isclass(target):
        if not _derives(target, expected.bases):
            raise ConfigError(f"{key}: the class {path} is not a {expected}, and was not called")
    elif not _derives(_returned(target), expected.bases):
        raise ConfigError(
            f"{key}: {path} is neither a class nor a function annotated to return a {expected}, and was not called"
        )


def _check_reference(value: Any, expected: Expected, key: str) -> None:
    """Checks a class, function or object that is passed as an argument, because the receiver may call it."""
    if inspect.isclass(value):
        allowed = _derives(value, expected.bases)
    elif isinstance(value, (*expected.bases, torch.dtype, torch.device)):
        allowed = True
    else:
        bases = expected.bases if expected.classes else (*expected.bases, torch.Tensor)
        takes_tensors = not expected.classes or torch.Tensor in expected.classes
        allowed = _derives(_returned(value), bases) or (takes_tensors and _is_of_tensors(value))
    if not allowed:
        name = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', type(value).__name__)}"
        raise ConfigError(
            f"{key}: {name} is not a {expected}, nor a function annotated to return one, and was not called"
        )


def imported(path: Any, key: str) -> Any:
    """Returns the object at a dotted path: an attribute of the longest module that can be imported.

    Raises:
        ConfigError: there is none, or it belongs to Python's standard library, which is not allowed.
    """
    parts = str(path).split(".")
    if not isinstance(path, str) or len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{key}: class_path is {path!r}, expected a dotted name such as package.Class")
    refuse_standard_library(path, key)
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise ConfigError(f"{key}: the class {path} cannot be imported ({error})") from error
        for part in parts[count:]:
            found = getattr(found, part) if isinstance(found, types.ModuleType) else inspect.getattr_static(found, part)
            if isinstance(found, (staticmethod, classmethod)):
                found = found.__func__
        return found
    raise ConfigError(f"{key}: the class {path} cannot be imported (no module named {parts[0]!r})")


def returns(function: Any, base: type) -> bool:
    """Returns whether a function is annotated to return this class or a subclass."""
    return _derives(_returned(function), (base,))


def refuse_standard_library(path: str, key: str) -> None:
    """Raises ConfigError for a path in the standard library; called before the import, which may have side effects."""
    if path.partition(".")[0] in standard_library():
        raise ConfigError(f"{key}: {path} belongs to Python's standard library, which a configuration cannot name")


@functools.cache
def standard_library() -> frozenset[str]:
    """Returns the names of the modules of the standard library, without ``__main__``, which is the user's script."""
    return frozenset({*sys.stdlib_module_names, *sys.builtin_module_names, "builtins", "jsonargparse"}) - {"__main__"}


# ---------------------------------------------------------------------- reading annotations


def _resolved(function: Any, name: str, annotation: Any) -> Any:
    """Evaluates an annotation given as a string; returns Any if it cannot be resolved."""
    if not isinstance(annotation, str):
        return annotation
    # Each annotation is resolved separately, because one name imported only for type checkers would fail all.
    single = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(single, vars(sys.modules[function.__module__]))[name]
    except (NameError, AttributeError, TypeError, SyntaxError, KeyError):
        return Any


def _classes(hint: Any) -> Iterable[type]:
    """Yields the classes in an annotation, except for those of plain data.

    >>> list(_classes(list[nn.Module] | None)), list(_classes(Callable[[], nn.Module]))
    ([<class 'torch.nn.modules.module.Module'>], [<class 'torch.nn.modules.module.Module'>])
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is inspect.Parameter.empty:
        return
    if origin is typing.Annotated:
        arguments = arguments[:1]
    if origin is typing.Literal:
        return
    if origin is Callable or origin is getattr(typing, "Callable", None):
        arguments = arguments[-1:]
    if isinstance(hint, typing.TypeVar):
        arguments = tuple(part for part in (hint.__bound__, *hint.__constraints__) if part is not None)
    for part in arguments:
        yield from _classes(part)
    candidate = origin if origin is not None else hint
    if (
        inspect.isclass(candidate)
        and candidate not in (*_PLAIN, *_CONTAINERS)
        and not _is_abstract_container(candidate)
    ):
        yield candidate


def _words_without_null(hint: Any) -> str | None:
    """Describes the values of an annotation in words; returns None if they include null or are not of plain types.

    >>> _words_without_null(int | list[int]), _words_without_null(int | None), _words_without_null(Any)
    ('an integer or a list of integers', None, None)
    """
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    plain = all(part in (int, float, bool, str) or typing.get_origin(part) in (list, typing.Literal) for part in parts)
    named = all(inspect.isclass(part) and part is not type(None) for part in parts if typing.get_origin(part) is None)
    if any(part in (object, Any, inspect.Parameter.empty) for part in parts) or not (plain or named):
        return None
    return messages.readable([str(part) for part in parts])


def _is_abstract_container(kind: type) -> bool:
    return getattr(kind, "_is_protocol", False) or kind.__module__ in (
        "collections.abc",
        "typing",
        "types",
        "collections",
    )


def _returned(function: Any) -> Any:
    """Returns the class in the return annotation of a function."""
    try:
        annotation = inspect.signature(function).return_annotation
    except (TypeError, ValueError):
        return None
    if annotation is inspect.Signature.empty:
        return None
    hint = _resolved(function, "return", annotation)
    return typing.get_origin(hint) or hint


def _is_of_tensors(function: Any) -> bool:
    """Returns whether an object is a torch function on tensors, such as ``torch.tanh``, which has no annotations."""
    return any(function in functions for functions in torch.overrides.get_overridable_functions().values())


def _derives(kind: Any, bases: Sequence[type]) -> bool:
    return inspect.isclass(kind) and issubclass(kind, tuple(bases))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (hasattr(value, "as_dict") and hasattr(value, "items"))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Returns the items of a mapping or of jsonargparse's Namespace, one level deep."""
    return value.items() if isinstance(value, Mapping) else vars(value).items()
