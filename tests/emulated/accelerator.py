"""The registration of the emulated device with Lightning: ``Trainer(accelerator="emu", strategy="single_emu")``."""

from __future__ import annotations

import torch
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry
from pytorch_lightning.strategies import SingleDeviceStrategy, StrategyRegistry

from emulated.memory import NAME

STRATEGY = "auto" if NAME == "cuda" else f"single_{NAME}"


class EmulatedAccelerator(Accelerator):
    """One device, which needs no set-up."""

    def setup_device(self, device):
        pass

    def teardown(self):
        pass

    def get_device_stats(self, device):
        return {}

    @staticmethod
    def parse_devices(devices):
        return [0]

    @staticmethod
    def get_parallel_devices(devices):
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return NAME


def install_accelerator() -> None:
    """Registers accelerator and strategy, once a process."""
    if NAME in AcceleratorRegistry.available_accelerators():
        return
    AcceleratorRegistry.register(NAME, EmulatedAccelerator, description="an emulated device")
    StrategyRegistry.register(
        STRATEGY, SingleDeviceStrategy, description="on the emulated device", device=torch.device(NAME, 0)
    )
