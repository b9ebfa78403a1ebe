"""What step rules, controllers and events have in common: tensors by member, which follow members and device."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor


class FlowPart:
    """A part of the flow without state: the same arguments give the same result, by operations on the device alone.

    It is evaluated inside of a step: no number is read back to the host, nothing is stored between calls, and no branch
    depends on data. On CUDA the step may be recorded once and replayed. A part that holds tensors overrides both
    methods.
    """

    def select(self, rows: Tensor) -> Self:
        """The same part for some of the members, given by their indices; itself if it holds nothing by member."""
        return self

    def to(self, device: torch.device) -> Self:
        """The same part on a device; itself if it holds no tensors."""
        return self


def select_rows(part: Any, rows: Tensor) -> Any:
    """The part for some of the members; one that is no :class:`FlowPart` may leave ``select`` out."""
    return part.select(rows) if hasattr(part, "select") else part


def on_device(part: Any, device: torch.device) -> Any:
    """The part on a device; one that is no :class:`FlowPart` may leave ``to`` out."""
    return part.to(device) if hasattr(part, "to") else part
