"""Who the members of an ensemble are: every alpha with every seed, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.configuration import MOST_MEMBERS


@dataclass(frozen=True)
class Ensemble:
    """E members, the seeds of the first alpha first.

    >>> Ensemble.of([0.01, 100.0], 2)
    Ensemble(alphas=(0.01, 0.01, 100.0, 100.0), seeds=(0, 1, 0, 1))
    """

    alphas: tuple[float, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, alpha: float | Sequence[float], seeds: int | Sequence[int]) -> Ensemble:
        """All pairs; an integer k for ``seeds`` stands for 0, ..., k - 1.

        Raises:
            ConfigError: for an empty or repeated list, what is no number, a seed outside of 0, ..., 2^63 - 1, or more
                than a million members.
        """
        alphas = _scales(alpha)
        chosen = _seeds(seeds)
        for name, given, values in (("alpha", alpha, alphas), ("seeds", seeds, chosen)):
            if not values:
                raise ConfigError(f"{name} is {given}: give at least one")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} has a value twice: {values}; a member is one pair of alpha and seed")
        for seed in (min(chosen), max(chosen)):
            if not 0 <= seed < 2**63:
                raise ConfigError(f"seeds must be >= 0 and below 2^63, got {seed}")
        _require_few(len(alphas) * len(chosen))
        return cls(tuple(a for a in alphas for _ in chosen), tuple(s for _ in alphas for s in chosen))

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, rows: Sequence[int]) -> Ensemble:
        """Some of the members, in the order of ``rows``."""
        return Ensemble(tuple(self.alphas[i] for i in rows), tuple(self.seeds[i] for i in rows))

    def alpha_tensor(self) -> Tensor:
        """(E,) float64 the alpha of each member."""
        return torch.tensor(self.alphas, dtype=torch.float64)

    def groups(self) -> Tensor:
        """(E,) int64: members of one alpha share a group, counted in order of appearance."""
        order = {a: i for i, a in enumerate(dict.fromkeys(self.alphas))}
        return torch.tensor([order[a] for a in self.alphas])


def _scales(alpha: object) -> list[float]:
    values = list(alpha) if isinstance(alpha, (Sequence, np.ndarray)) and not isinstance(alpha, str) else [alpha]
    numbers = [value for value in values if isinstance(value, Real) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        raise ConfigError(f"alpha is {alpha!r}, expected a number > 0 or a list of them")
    return [float(value) for value in numbers]


def _seeds(seeds: object) -> list[int]:
    if isinstance(seeds, Integral) and not isinstance(seeds, bool):
        _require_few(int(seeds))
        return list(range(int(seeds)))
    values = seeds if isinstance(seeds, (Sequence, np.ndarray)) and not isinstance(seeds, str) else [seeds]
    _require_few(len(values))
    numbers = [value for value in values if isinstance(value, Integral) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        raise ConfigError(f"seeds is {seeds!r}, expected how many, or a list of integers")
    return [int(value) for value in numbers]


def _require_few(members: int) -> None:
    if members > MOST_MEMBERS:
        raise ConfigError(
            f"seeds and alpha make {members} members, more than {MOST_MEMBERS} in one run: give fewer, or a list of "
            "seeds"
        )
