"""Tensors of the host and of the emulated device over the same memory, through DLPack capsules."""

from __future__ import annotations

import ctypes
import os

import torch

NAME = "cuda" if os.environ.get("LAZY_LIGHTNING_DEVICE") == "cuda" else "emu"
_HOST, _EXTENSION = 1, 12  # kDLCPU and kDLExtDev, which torch reads as PrivateUse1


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _TensorHead(ctypes.Structure):
    """The first two fields of DLTensor, itself the first field of DLManagedTensor."""

    _fields_ = [("data", ctypes.c_void_p), ("device", _Device)]


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_to_dlpack, _from_dlpack = torch._C._to_dlpack, torch._C._from_dlpack


def _relabelled(tensor: torch.Tensor, device_type: int) -> torch.Tensor:
    capsule = _to_dlpack(tensor)
    head = ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(_TensorHead)).contents
    head.device.device_type, head.device.device_id = device_type, 0
    return _from_dlpack(capsule)


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the emulated device."""
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return _relabelled(tensor, _EXTENSION)


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the CPU."""
    return _relabelled(tensor, _HOST)


def is_emulated(x: object) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == NAME


def bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """The memory of a storage of either device as a uint8 tensor on the CPU."""
    if not storage.nbytes():
        return torch.empty(0, dtype=torch.uint8)
    block = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
    block.owner = storage  # keeps the storage alive as long as the block
    return torch.frombuffer(block, dtype=torch.uint8)


def tensor_over(storage: torch.UntypedStorage, dtype: torch.dtype, offset: int, size, stride) -> torch.Tensor:
    """A tensor of the emulated device over the memory of a storage."""
    raw = bytes_of(storage)
    whole = raw[: raw.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
    return on_device(whole.as_strided(size, stride, offset))
