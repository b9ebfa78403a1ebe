"""The registration of the emulated device with torch, under its backend key PrivateUse1."""

from __future__ import annotations

import torch

from emulated.dispatch import GENERATOR, convolution, convolution_backward, run
from emulated.memory import NAME, bytes_of, on_device
from emulated.waits import note

_libraries: list[torch.library.Library] = []


class _DeviceModule:
    """What ``torch.emu`` is: the functions that torch asks of every backend."""

    def is_initialized(self):
        return True

    def is_available(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def set_device(self, device):
        pass

    def _is_in_bad_fork(self):
        return False

    def manual_seed(self, seed):
        GENERATOR.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device=None):
        return GENERATOR.get_state()

    def set_rng_state(self, state, device=None):
        GENERATOR.set_state(state)

    def synchronize(self, device=None):
        note("read", "synchronize")

    def empty_cache(self):
        pass

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16, torch.float32]


def install() -> None:
    """Makes the device known to torch, once a process and before its first backward pass."""
    if _libraries:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_DeviceModule())
    everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(run, "PrivateUse1")
    aten.impl("convolution_overrideable", convolution, "PrivateUse1")
    aten.impl("convolution_backward_overrideable", convolution_backward, "PrivateUse1")
    _libraries.extend((everything, aten))  # a library's operations are gone when it is
    _patch_storages()
    _patch_modules()


def _patch_storages() -> None:
    """Copies of storages, which have no dispatcher and would ask for the backend's allocator."""
    kind = torch.UntypedStorage
    clone, cpu, to = kind.clone, kind.cpu, kind.to

    def own_clone(self):
        return on_device(bytes_of(self).clone()).untyped_storage() if self.device.type == NAME else clone(self)

    def own_cpu(self):
        if self.device.type != NAME:
            return cpu(self)
        note("device to host", "storage")
        return bytes_of(self).clone().untyped_storage()

    def own_to(self, *, device, non_blocking=False):
        target = torch.device(device)
        if self.device.type == NAME:
            return self if target.type == NAME else own_cpu(self)
        if target.type != NAME:
            return to(self, device=device, non_blocking=non_blocking)
        note("host to device", "storage")
        return on_device(bytes_of(self).clone()).untyped_storage()

    kind.clone, kind.cpu, kind.to = own_clone, own_cpu, own_to


def _patch_modules() -> None:
    """``module.to`` keeps its Parameter objects, as between CPU and CUDA: torch does so for built-in devices only."""
    plain, future = torch.nn.Module._apply, torch.__future__

    def crosses(module, fn) -> bool:
        first = next(module.parameters(), None)
        if first is None:
            return False
        probe = torch.empty(0, dtype=first.dtype, device=first.device)
        moved = fn(probe)
        return NAME in (probe.device.type, moved.device.type) and moved.device != probe.device

    def own_apply(self, fn, recurse=True):
        before = future.get_swap_module_params_on_conversion()
        if before or not crosses(self, fn):
            return plain(self, fn, recurse)
        future.set_swap_module_params_on_conversion(True)
        try:
            return plain(self, fn, recurse)
        except RuntimeError as error:  # parameters that something else refers to: new objects then
            if "swap" not in str(error):
                raise
        finally:
            future.set_swap_module_params_on_conversion(before)
        return plain(self, fn, recurse)

    torch.nn.Module._apply = own_apply
