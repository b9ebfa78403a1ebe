"""Members that share a kernel, as those that differ by alpha alone do: it is held, and read from memory, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sharing:
    """Which of U kernels each of E members has; members of one kernel are columns of one matrix product."""

    own: Tensor
    """(E,) int64"""
    slot: Tensor
    """(E,) int64: which column of its kernel's each member is."""
    slots: int
    """The most members that one kernel has."""

    @classmethod
    def of(cls, own: Tensor) -> Sharing:
        """From the kernel of each member; waits for the device.

        >>> Sharing.of(torch.tensor([0, 1, 0])).slot
        tensor([0, 0, 1])
        """
        counts: dict[int, int] = {}
        slot = []
        for kernel in own.tolist():
            slot.append(counts.get(kernel, 0))
            counts[kernel] = slot[-1] + 1
        return cls(own, torch.tensor(slot, device=own.device, dtype=torch.int64), max(counts.values(), default=0))

    def select(self, rows: Tensor) -> tuple[Sharing, Tensor]:
        """The sharing of some members among the kernels that they need, and which these are."""
        used, own = torch.unique(self.own[rows], return_inverse=True)
        return Sharing.of(own), used

    def product(self, kernels: Tensor, columns: Tensor) -> Tensor:
        """(U, r, s) with (E, s, k) to (E, r, k): each member's columns by its own kernel."""
        rows, width = columns.shape[1:]
        gathered = columns.new_zeros(len(kernels), self.slots, rows, width)
        gathered[self.own, self.slot] = columns
        side_by_side = gathered.transpose(1, 2).reshape(len(kernels), rows, self.slots * width)
        products = (kernels @ side_by_side).view(len(kernels), -1, self.slots, width)
        return products[self.own, :, self.slot]


def distinct_members(weights: Tensor, buffers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The first member of each set of equal weights (U,), and which of these sets each member has (E,).

    Members with buffers of their own are all taken for distinct.
    """
    if buffers:
        every = torch.arange(len(weights), device=weights.device)
        return every, every
    own = torch.unique(weights, dim=0, return_inverse=True)[1].tolist()
    kinds = list(dict.fromkeys(own))
    first = torch.tensor([own.index(kind) for kind in kinds], device=weights.device)
    return first, torch.tensor([kinds.index(kind) for kind in own], device=weights.device)
