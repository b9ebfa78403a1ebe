"""Description of Python objects as plain data for a configuration."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

_PLAIN = (str, int, float, bool, type(None))


def described(value: Any) -> Any:
    """Returns plain data for YAML: classes by ``class_path`` and known ``init_args``, arrays by their digest.

    Objects with different descriptions are different. Objects with the same description may differ only in attributes
    of instances of other packages that are private or not plain data.

    >>> described(functools.partial(torch.nn.Linear, 2, out_features=1))["init_args"]
    {'in_features': 2, 'out_features': 1}
    """
    if isinstance(value, enum.Enum):
        return described(value.value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return array_digest(value)
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [described(part) for part in value]
    if isinstance(value, functools.partial):
        return {"class_path": path_of(value.func), "init_args": described(_arguments(value))}
    if inspect.isclass(value) or inspect.isbuiltin(value):
        return {"class_path": path_of(value)}
    if isinstance(value, FunctionType):
        return {"class_path": path_of(value), "digest": _function_digest(value)}
    known = getattr(value, "constructor_arguments", None)
    if isinstance(known, Mapping):
        return {"class_path": path_of(type(value)), "init_args": described(known)}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class_path": path_of(type(value)), "init_args": described(fields)}
    return {"class_path": path_of(type(value)), "attributes": _plain_attributes(value)}


def _plain_attributes(value: object) -> dict[str, Any]:
    own = getattr(value, "__dict__", {})
    return {name: part for name, part in sorted(own.items()) if not name.startswith("_") and isinstance(part, _PLAIN)}


def path_of(target: Any) -> str:
    """Returns the import path of a class or function, including the enclosing function of a local one."""
    return f"{target.__module__}.{target.__qualname__}"


def array_digest(value: Any) -> dict[str, Any]:
    """Returns the shape, the dtype and the SHA-256 of the content of a tensor or an array."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": content}


def _arguments(partial: functools.partial[Any]) -> dict[str, Any]:
    try:
        return dict(inspect.signature(partial.func).bind_partial(*partial.args, **partial.keywords).arguments)
    except (TypeError, ValueError):  # a builtin without a signature
        return {"args": list(partial.args), **partial.keywords}


def _function_digest(function: FunctionType) -> str:
    """Returns a digest of a function's code, its defaults, and the values in its closure."""
    closed = [described(cell.cell_contents) for cell in function.__closure__ or ()]
    content = [_code(function.__code__), described(function.__defaults__ or ()), closed]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]


def _code(code: CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]
