"""Available memory of hosts and devices, so that computations that do not fit raise before they start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lazy_lightning import heap
from lazy_lightning.errors import MemoryShortageError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_WORKING_SHARE = 0.25


def available_bytes(device: torch.device) -> int:
    """Returns the bytes that can be allocated on a device; for the CPU, within the limits of its container.

    What the heap of this process or torch's allocator on the device keeps for later use counts as available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_host_bytes(), _container_bytes()) + heap.free_bytes()


def working_bytes(device: torch.device) -> float:
    """Returns the bytes that intermediate results may occupy: a quarter of the available memory."""
    return _WORKING_SHARE * available_bytes(device)


def require_bytes(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Checks that an allocation fits into the available memory.

    Args:
        needed: the size of the allocation in bytes.
        device: the device on which it is made.
        what: the name of the object, the subject of the error message.
        remedy: the end of the error message, which describes what to do.

    Raises:
        MemoryShortageError: it does not fit; the message names both sizes and the remedy.
    """
    free = available_bytes(device)
    if needed > free:
        raise MemoryShortageError(
            f"{what} needs {readable(needed)}, but {readable(free)} are free on {device}: {remedy}"
        )


def bytes_saved_for_backward(evaluate: Callable[[], object], shared: Iterable[Tensor] = ()) -> int:
    """Returns the bytes of the distinct tensors that autograd saves during a call, without the ``shared`` ones."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        evaluate()
    for tensor in shared:
        seen.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(seen.values())


def readable(size: float) -> str:
    """Formats a number of bytes with a binary unit.

    >>> readable(20_000_000_000)
    '18.6 GiB'
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _host_bytes() -> int:
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_bytes() -> int:
    """Returns the smallest number of bytes left in the control groups (cgroups) that contain this process."""
    return min(_group_bytes(group) for group in _groups())


def _groups() -> list[Path]:
    try:
        own = next(line for line in _MEMBERSHIP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [_CGROUP]
    path = _CGROUP / own.removeprefix("0::").strip("/")
    return [path, *(group for group in path.parents if group.is_relative_to(_CGROUP))]


def _group_bytes(group: Path) -> int:
    """Returns the bytes left in one control group; a group without a limit has the word ``max``, or no file.

    The page cache of recently read files counts as used but can be freed, so it is added.
    """
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return 2**63 - 1
