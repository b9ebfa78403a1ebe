"""The operations that the backend implements itself: memory, views, and copies between the devices."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emulated.memory import is_emulated, on_device, on_host, tensor_over
from emulated.waits import note


def _as_strided(self, size, stride, storage_offset=None):
    offset = self.storage_offset() if storage_offset is None else storage_offset
    return torch.ops.aten.as_strided_.default(self.detach(), size, stride, offset)


def _like(self):
    return torch.empty_strided(self.shape, self.stride(), dtype=self.dtype, device="meta")


def _view(self, size):
    view = _like(self).view(size)
    return _as_strided(self, view.shape, view.stride())


def _reshape_alias(self, size, stride):
    return _as_strided(self, size, stride)


def _unfold(self, dimension, size, step):
    view = _like(self).unfold(dimension, size, step)
    return _as_strided(self, view.shape, view.stride())


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return on_device(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return on_device(torch.empty_strided(size, stride, dtype=dtype))


def _efficientzerotensor(size, *, dtype=None, layout=None, device=None, pin_memory=None):
    return on_device(torch.zeros(size, dtype=dtype))


def _copy_from(self, dst, non_blocking=False):
    source, target = is_emulated(self), is_emulated(dst)
    if self.numel() and source != target and not (target and non_blocking):  # to pageable memory CUDA waits anyway
        note("device to host" if source else "host to device", "copy")
    (on_host(dst) if target else dst).copy_(on_host(self) if source else self)
    return dst


def _copy_from_and_resize(self, dst):
    if dst.shape != self.shape:
        dst.resize_(self.shape)
    return _copy_from(self, dst)


def _local_scalar_dense(self):
    note("read", "item")
    return torch.ops.aten._local_scalar_dense.default(on_host(self))


def _resize(self, size, memory_format=None):
    if tuple(self.shape) == tuple(size):
        return self
    new = torch.empty(size, dtype=self.dtype)
    old = on_host(self).flatten()
    count = min(old.numel(), new.numel())
    new.view(-1)[:count] = old[:count]
    self.data = on_device(new)
    return self


def _set(self, *args):
    if not args:
        self.data = on_device(torch.empty(0, dtype=self.dtype))
        return self
    source = args[0]
    if isinstance(source, torch.Tensor):
        self.data = source if len(args) == 1 else _as_strided(source, args[2], args[3], args[1])
        return self
    source = source if isinstance(source, torch.UntypedStorage) else source.untyped()
    if len(args) == 1:
        count = source.nbytes() // self.dtype.itemsize
        self.data = tensor_over(source, self.dtype, 0, (count,), (1,))
    else:
        self.data = tensor_over(source, self.dtype, *args[1:])
    return self


KERNELS: dict[str, Callable] = {
    "as_strided": _as_strided,
    "view": _view,
    "_unsafe_view": _view,
    "_reshape_alias": _reshape_alias,
    "unfold": _unfold,
    "empty": _empty,
    "empty_strided": _empty_strided,
    "_efficientzerotensor": _efficientzerotensor,
    "_copy_from": _copy_from,
    "_copy_from_and_resize": _copy_from_and_resize,
    "_local_scalar_dense": _local_scalar_dense,
    "resize_": _resize,
    "set_": _set,
}
