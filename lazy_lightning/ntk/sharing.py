"""Members that share a kernel, as those that differ by alpha alone do: it is held, and read from memory, once."""

from __future__ import annotations

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
    """No kernel has more members than this."""

    @classmethod
    def of(cls, own: Tensor) -> Sharing:
        """From the kernel of each member; waits for the device once.

        >>> Sharing.of(torch.tensor([0, 1, 0])).slot
        tensor([0, 0, 1])
        """
        slot = _slots(own)
        return cls(own, slot, int(slot.max()) + 1 if len(own) else 0)

    def select(self, rows: Tensor) -> tuple[Sharing, Tensor]:
        """The sharing of some members among the kernels that they need, and which these are; waits once."""
        used, own = torch.unique(self.own[rows], return_inverse=True)
        return Sharing(own, _slots(own), self.slots), used

    def product(self, kernels: Tensor, columns: Tensor) -> Tensor:
        """(U, r, s) with (E, s, k) to (E, r, k): each member's columns by its own kernel."""
        rows, width = columns.shape[1:]
        gathered = columns.new_zeros(len(kernels), self.slots, rows, width)
        gathered[self.own, self.slot] = columns
        comparison_models = gathered.transpose(1, 2).reshape(len(kernels), rows, self.slots * width)
        products = (kernels @ comparison_models).view(len(kernels), -1, self.slots, width)
        return products[self.own, :, self.slot]


def _slots(own: Tensor) -> Tensor:
    """How many of the members before each have the same kernel, (E,)."""
    return (own.unsqueeze(1) == own.unsqueeze(0)).tril(-1).sum(dim=1)
