"""Runs one operation of the emulated device by the kernel of the CPU, with the checks that CUDA makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from emulated.kernels import KERNELS
from emulated.memory import NAME, is_emulated, on_device, on_host
from emulated.waits import note

GENERATOR = torch.Generator()
"""The random generator of the device."""

# Pointwise operations of TensorIterator, which take a 0-dim CPU tensor as a number, and a few that move it.
_NAMES = """
    add sub rsub mul div true_divide floor_divide remainder fmod pow float_power atan2 hypot maximum minimum fmax
    fmin eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor lerp addcmul addcdiv
    clamp clamp_min clamp_max where masked_fill fill copysign xlogy logaddexp logaddexp2 nextafter heaviside
    special_xlog1py special_zeta index_put _index_put_impl sigmoid_backward tanh_backward threshold_backward
    softplus_backward elu_backward silu_backward gelu_backward leaky_relu_backward hardtanh_backward
    log_sigmoid_backward mse_loss huber_loss copy _copy_from threshold
"""
_TAKES_HOST_NUMBER = frozenset(_NAMES.split())
_WAITS = {
    "nonzero": "nonzero", "masked_select": "nonzero", "argwhere": "nonzero",
    "unique_dim": "unique", "_unique2": "unique", "_unique": "unique", "unique_consecutive": "unique",
    "unique_dim_consecutive": "unique", "equal": "read", "bincount": "read", "is_nonzero": "read",
    "histogram": "read", "multinomial": "read", "_linalg_eigh": "check", "_linalg_svd": "check",
    "linalg_eig": "check", "linalg_lstsq": "check", "linalg_eigvals": "check", "_linalg_eigvals": "check",
}  # fmt: skip
_INDEX_PUT = ("index_put", "index_put_", "_index_put_impl_")
_INDEXING = (*_INDEX_PUT, "index", "_unsafe_index", "_unsafe_index_put")


class _Signature(NamedTuple):
    """What is read from an operation's schema once: reading it takes longer than most kernels."""

    name: str
    kernel: Callable | None
    outs: tuple[str, ...]
    generator: tuple[int, bool] | None
    """Its position among the arguments, and whether it is passed by keyword only."""
    of_tensors: tuple[bool, ...]
    """Whether each argument is a tensor: torch's wrapped numbers arrive here as Python numbers."""


_signatures: dict[object, _Signature] = {}


def _signature(func) -> _Signature:
    schema = func._schema
    name, arguments = schema.name.split("::")[1], schema.arguments
    own = None if schema.overload_name.startswith(("out", "names")) else KERNELS.get(name)
    generators = [(i, a.kwarg_only) for i, a in enumerate(arguments) if a.name == "generator"]
    outs = tuple(a.name for a in arguments if a.is_out)
    of_tensors = tuple(str(a.type) in ("Tensor", "Optional[Tensor]") for a in arguments)
    found = _Signature(name, own, outs, generators[0] if generators else None, of_tensors)
    return _signatures.setdefault(func, found)


def run(func, *args, **kwargs):
    """The result of one operation, as tensors of the emulated device."""
    signature = _signatures.get(func) or _signature(func)
    if signature.kernel is not None:
        return signature.kernel(*args, **kwargs)
    _check_devices(func, signature.name, _tensors((*args, *kwargs.values()), []))
    _note_waits(signature.name, args, kwargs)
    if signature.generator is not None:
        _use_own_generator(signature.generator, args, kwargs)
    if (device := kwargs.get("device")) is not None and torch.device(device).type == NAME:
        kwargs["device"] = torch.device("cpu")
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # on the device, and the same memory on the host
    outs = [kwargs.get(out) for out in signature.outs]
    if any(isinstance(x, bool) for x in args):
        args = [torch.tensor(x) if isinstance(x, bool) and signature.of_tensors[i] else x for i, x in enumerate(args)]
    made = func(*[_lowered(x, pairs, outs) for x in args], **{k: _lowered(x, pairs, outs) for k, x in kwargs.items()})
    for high, low in pairs:
        if low.shape != high.shape:  # an empty output that the kernel has resized
            high.data = on_device(low)
    return _lifted(made, pairs)


def convolution(x, weight, bias, *rest):
    return run(torch.ops.aten.convolution.default, x, weight, bias, *rest)


def convolution_backward(grad, x, weight, stride, padding, dilation, transposed, output_padding, groups, mask):
    sizes = [weight.shape[1] * groups if transposed else weight.shape[0]]
    rest = (stride, padding, dilation, transposed, output_padding, groups, mask)
    return run(torch.ops.aten.convolution_backward.default, grad, x, weight, sizes, *rest)


def _tensors(tree: object, into: list[torch.Tensor]) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        into.append(tree)
    elif isinstance(tree, (list, tuple)):
        for x in tree:
            _tensors(x, into)
    return into


def _check_devices(func, name: str, tensors: list[torch.Tensor]) -> None:
    strangers = [t for t in tensors if not is_emulated(t)]
    if not strangers or len(strangers) == len(tensors):
        return
    if name in _INDEXING and is_emulated(tensors[0]) and not any(t.is_floating_point() for t in strangers):
        if name != "index":  # its composite part has moved the index already, which was noted as a copy
            note("host to device", f"{name} by an index on the host")
        return
    plain = name.rstrip("_")
    for t in strangers:
        if t.dim() == 0 and t.device.type == "cpu" and plain in _TAKES_HOST_NUMBER:
            if plain == "where":
                note("host to device", "where with a number on the host")
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and {t.device}! "
            f"({func}: {[(str(t.device), tuple(t.shape)) for t in tensors]})"
        )


def _note_waits(name: str, args, kwargs) -> None:
    if name in _WAITS:
        note(_WAITS[name], name)
    elif name in _INDEX_PUT:  # the masks of index itself are seen by its call of nonzero
        masks = [i for i in args[1] if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)]
        accumulates = len(args) > 3 and args[3]
        becomes_masked_fill = len(masks) == 1 and args[2].numel() == 1 and not accumulates
        if masks and not becomes_masked_fill:
            note("nonzero", f"{name} by a mask")
    elif name in ("masked_fill", "masked_fill_") and is_emulated(args[2]):
        note("read", "masked_fill with a number on the device")
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        note("read", name)


def _use_own_generator(position: tuple[int, bool], args, kwargs) -> None:
    place, keyword_only = position
    given = kwargs.get("generator") if keyword_only or place >= len(args) else args[place]
    if given is not None and given is not GENERATOR:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{given.device.type}'")
    kwargs["generator"] = GENERATOR


# Not closures that call themselves: such a reference cycle would keep tensors, and their graphs, until the next gc.


def _lowered(x, pairs, outs):
    if isinstance(x, torch.Tensor):
        if not is_emulated(x):
            return x
        sized_by_kernel = not x.numel() and any(x is out for out in outs)
        low = torch.empty(0, dtype=x.dtype) if sized_by_kernel else on_host(x)
        pairs.append((x, low))
        return low
    return type(x)([_lowered(y, pairs, outs) for y in x]) if isinstance(x, (list, tuple)) else x


def _lifted(x, pairs):
    if isinstance(x, torch.Tensor):
        for high, low in pairs:
            if x is low:
                return high
        return on_device(x)
    return type(x)([_lifted(y, pairs) for y in x]) if isinstance(x, (list, tuple)) else x
