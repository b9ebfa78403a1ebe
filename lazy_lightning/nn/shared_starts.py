"""SharedStarts: which members of an ensemble have equal initial weights, and so share all that follows from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SharedStarts:
    """U distinct initial networks among E members: those that differ by alpha alone share one.

    ``x[starts.first]`` takes the U distinct rows of x (E, ...), and ``distinct[starts.own]`` gives each member its own
    of U rows.

    >>> starts = SharedStarts.of_seeds([0, 1, 0, 1])
    >>> starts.first, starts.own, len(starts)
    (tensor([0, 1]), tensor([0, 1, 0, 1]), 2)
    """

    first: Tensor
    """(U,) int64: the first member with each distinct start, in increasing order."""
    own: Tensor
    """(E,) int64: which of these starts each member has."""

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of_seeds(cls, seeds: Sequence[int]) -> SharedStarts:
        """Members with equal seeds share their start."""
        positions = {seed: i for i, seed in enumerate(dict.fromkeys(seeds))}
        first = torch.tensor([seeds.index(seed) for seed in positions], dtype=torch.int64)
        return cls(first, torch.tensor([positions[seed] for seed in seeds], dtype=torch.int64))

    @classmethod
    def of_weights(cls, weights: Tensor, buffers: Mapping[str, Tensor]) -> SharedStarts:
        """Members with equal weights (E, N) share them; those with buffers of their own are all taken for distinct."""
        every = torch.arange(len(weights), device=weights.device)
        if buffers:
            return cls.distinct(every)
        kinds, own = torch.unique(weights, dim=0, return_inverse=True)
        first = every.new_zeros(len(kinds)).scatter_reduce(0, own, every, "amin", include_self=False)
        first, order = first.sort()
        return cls(first, order.argsort()[own])

    @classmethod
    def distinct(cls, members: Tensor) -> SharedStarts:
        """No two of the members (E,) 0, 1, ..., E - 1 share anything."""
        return cls(members, members)

    def to(self, device: torch.device) -> SharedStarts:
        """The same on another device."""
        return SharedStarts(self.first.to(device), self.own.to(device))

    def rows(self, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The buffers (E, *shape) of the first member with each start, (U, *shape) each."""
        return {name: b[self.first] for name, b in buffers.items()}
