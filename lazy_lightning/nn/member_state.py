"""What a built network holds besides its trainable weights, and whether the networks of two seeds differ in it."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError

_MAX_DEPTH = 8
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves: those with ``requires_grad``.

    Raises:
        ConfigError: there are none, or one of them is complex.
    """
    named = dict(module.named_parameters())
    weights = {name: p for name, p in named.items() if p.requires_grad}
    if not weights:
        frozen = " with requires_grad" if named else ""
        raise ConfigError(
            f"the network {type(module).__name__} has no parameters{frozen}, so there is nothing to train"
        )
    for name, p in weights.items():
        if p.is_complex():
            raise ConfigError(
                f"the parameter {name} of the network {type(module).__name__} is complex, expected real weights: hold "
                "its real and imaginary parts in one real parameter, and use torch.view_as_complex in forward"
            )
    return weights


def held_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Frozen parameters and buffers by name: what a network computes with and does not train."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())


def in_precision(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point and complex numbers in the precision of ``dtype``, others unchanged.

    >>> in_precision(torch.ones(1, dtype=torch.complex128), torch.float32).dtype
    torch.complex64
    """
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def equal_tensors(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one type, one shape and the same values; NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    if torch.equal(one, other):
        return True
    number = one.is_floating_point() or one.is_complex()
    return number and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)


def differing_tensor(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor in which two networks differ."""
    names = [*one, *(name for name in other if name not in one)]
    return next((n for n in names if n not in one or n not in other or not equal_tensors(one[n], other[n])), None)


def differing_attribute(values: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """The first attribute in which two networks differ, of what :func:`attribute_values` gives for each."""
    names = [*values, *(name for name in others if name not in values)]
    return next((n for n in names if n not in values or n not in others or values[n] != others[n]), None)


def attribute_values(module: nn.Module) -> dict[str, Any]:
    """Numbers, texts and arrays in the attributes of all layers, by path, in a form that can be compared.

    Looks into lists, dictionaries, functions and plain objects, also at modules that are hidden in them. To be called
    before the network is evaluated, for layers may keep what they have computed.
    """
    return dict(_attributes(module, {id(held) for held in (*module.parameters(), *module.buffers())}))


def _attributes(module: nn.Module, seen: set[int]) -> Iterator[tuple[str, Any]]:
    seen |= {id(part) for part in module.modules()}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in _OF_TORCH:
                yield from _values(value, f"{prefix}.{name}" if prefix else name, seen, 0)


def _values(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _PLAIN):
        yield path, (type(value).__name__, repr(value))
    elif isinstance(value, Tensor):
        if (
            value.grad_fn is None and id(value) not in seen
        ):  # others are computed from the weights, and compared by what the network puts out
            yield path, _fingerprint(value)
    elif isinstance(value, np.ndarray | np.generic):
        yield path, (value.dtype.str, value.shape, value.tobytes())
    elif isinstance(value, torch.Generator):
        yield path, _fingerprint(value.get_state())
    elif id(value) not in seen and depth < _MAX_DEPTH:
        seen.add(id(value))
        for name, part in _parts(value):
            yield from _values(part, f"{path}{name}", seen, depth + 1)


def _fingerprint(value: Tensor) -> tuple[Any, ...]:
    held = value.detach().cpu().to_dense()
    real = torch.view_as_real(held.resolve_conj()) if held.is_complex() else held
    return str(held.dtype), tuple(held.shape), real.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container, a function or an object holds, by how it is written after the object's own name."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield "", tuple(sorted(repr(part) for part in value if isinstance(part, _PLAIN)))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.FunctionType):
        yield from (
            (f"({name})", cell) for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        )
        yield ".__defaults__", value.__defaults__
    elif isinstance(value, types.CellType):
        yield "", value.cell_contents
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, nn.Module):
        yield from (
            (f".{name}", tensor.detach())
            for name, tensor in (*value.named_parameters(recurse=False), *value.named_buffers(recurse=False))
        )
        yield from ((f".{name}", part) for name, part in vars(value).items() if name not in _OF_TORCH)
        yield from ((f".{name}", part) for name, part in value.named_children())
    elif not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
