"""Refuses tensors of two devices where a function takes several."""

from __future__ import annotations

from torch import Tensor

from lazy_lightning.errors import ConfigError


def require_one_device(**tensors: Tensor | None) -> None:
    """Lets pass tensors that lie on one device; None is ignored.

    Raises:
        ConfigError: otherwise, with the device of each.

    >>> import torch
    >>> require_one_device(kernel=torch.ones(1, 1), y=torch.ones(1), start=None)
    """
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        held = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ConfigError(f"tensors of several devices came together ({held}): move them to one, for example by .cpu()")
