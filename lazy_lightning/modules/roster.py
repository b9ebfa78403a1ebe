"""Who the members of an ensemble are: every alpha with every seed, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError


@dataclass(frozen=True)
class Roster:
    """E members, the seeds of the first alpha first.

    >>> Roster.of([0.01, 100.0], 2)
    Roster(alphas=(0.01, 0.01, 100.0, 100.0), seeds=(0, 1, 0, 1))
    """

    alphas: tuple[float, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, alpha: float | Sequence[float], seeds: int | Sequence[int]) -> Roster:
        """All pairs; an integer k for ``seeds`` stands for 0, ..., k - 1.

        Raises:
            ConfigError: for an empty or repeated list, or a negative seed.
        """
        alphas = [float(alpha)] if isinstance(alpha, (int, float)) else [float(a) for a in alpha]
        chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        for name, values in (("alpha", alphas), ("seeds", chosen)):
            if not values:
                raise ConfigError(f"{name} is {values or seeds}: give at least one")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} has a value twice: {values}; a member is one pair of alpha and seed")
        if min(chosen) < 0:
            raise ConfigError(f"seeds must be >= 0, got {min(chosen)}")
        return cls(tuple(a for a in alphas for _ in chosen), tuple(s for _ in alphas for s in chosen))

    def __len__(self) -> int:
        return len(self.seeds)

    def alpha_tensor(self) -> Tensor:
        """(E,) float64."""
        return torch.tensor(self.alphas, dtype=torch.float64)

    def groups(self) -> Tensor:
        """(E,) int64: members of one alpha share a group, counted in order of appearance."""
        order = {a: i for i, a in enumerate(dict.fromkeys(self.alphas))}
        return torch.tensor([order[a] for a in self.alphas])

    def rows_by_seed(self) -> tuple[Tensor, Tensor]:
        """The first member of each distinct seed, and the position (E,) of each member's seed among these.

        >>> Roster.of([0.01, 100.0], 2).rows_by_seed()
        (tensor([0, 1]), tensor([0, 1, 0, 1]))
        """
        distinct = list(dict.fromkeys(self.seeds))
        first = torch.tensor([self.seeds.index(seed) for seed in distinct])
        return first, torch.tensor([distinct.index(seed) for seed in self.seeds])
