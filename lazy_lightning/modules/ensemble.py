"""Who the members of an ensemble are: every alpha with every seed, and data seed, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lazy_lightning.argument_types import is_number
from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.configuration import MOST_MEMBERS

DataSeeds = int | list[int] | Literal["weights"] | None
"""How many data seeds, which, that of each member's weights, or none: the one data set of the datamodule."""


@dataclass(frozen=True)
class Ensemble:
    """E members, the seeds of the first alpha first, and of each of them its data seeds.

    >>> Ensemble.of([0.01, 100.0], 2)
    Ensemble(alphas=(0.01, 0.01, 100.0, 100.0), seeds=(0, 1, 0, 1), data_seeds=None)
    >>> Ensemble.of(1.0, 2, data_seeds=[5, 7])
    Ensemble(alphas=(1.0, 1.0, 1.0, 1.0), seeds=(0, 0, 1, 1), data_seeds=(5, 7, 5, 7))
    """

    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    data_seeds: tuple[int, ...] | None = None
    """None where all members have the data set of the datamodule."""

    @classmethod
    def of(
        cls, alpha: float | Sequence[float], seeds: int | Sequence[int], data_seeds: DataSeeds | Sequence[int] = None
    ) -> Ensemble:
        """All combinations; an integer k for ``seeds`` or ``data_seeds`` stands for 0, ..., k - 1.

        With ``data_seeds="weights"`` the data seed of a member is that of its weights.

        Raises:
            ConfigError: for an empty or repeated list, what is no number, a seed outside of 0, ..., 2^63 - 1, or more
                than a million members.
        """
        alphas, chosen = _scales(alpha), _seeds("seeds", seeds)
        from_weights = isinstance(data_seeds, str) and data_seeds == "weights"
        data = [None] if data_seeds is None or from_weights else _seeds("data_seeds", data_seeds)
        for name, given, values in (
            ("alpha", alpha, alphas), ("seeds", seeds, chosen), ("data_seeds", data_seeds, data)
        ):  # fmt: skip
            if not values:
                raise ConfigError(f"{name} is {given}: give at least one")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} has a value twice: {values}; a member is one pair of alpha and seed")
        for name, numbers in (("seeds", chosen), ("data_seeds", [d for d in data if d is not None])):
            for seed in (min(numbers, default=0), max(numbers, default=0)):
                if not 0 <= seed < 2**63:
                    raise ConfigError(f"{name} must be >= 0 and below 2^63, got {seed}")
        _require_few(len(alphas) * len(chosen) * len(data))
        every = [(a, s, s if from_weights else d) for a in alphas for s in chosen for d in data]
        own = None if data_seeds is None else tuple(d for _, _, d in every if d is not None)
        return cls(tuple(a for a, _, _ in every), tuple(s for _, s, _ in every), own)

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, rows: Sequence[int]) -> Ensemble:
        """Some of the members, in the order of ``rows``."""
        data = None if self.data_seeds is None else tuple(self.data_seeds[i] for i in rows)
        return Ensemble(tuple(self.alphas[i] for i in rows), tuple(self.seeds[i] for i in rows), data)

    def alpha_tensor(self) -> Tensor:
        """(E,) float64 the alpha of each member."""
        return torch.tensor(self.alphas, dtype=torch.float64)

    def groups(self) -> Tensor:
        """(E,) int64: members of one alpha and data set share a group, counted in order of appearance."""
        keys = list(zip(self.alphas, self.data_seeds or [None] * len(self), strict=True))
        order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return torch.tensor([order[key] for key in keys])


def _scales(alpha: object) -> list[float]:
    values = list(alpha) if isinstance(alpha, (Sequence, np.ndarray)) and not isinstance(alpha, str) else [alpha]
    numbers = [value for value in values if is_number(value)]
    if len(numbers) < len(values):
        raise ConfigError(f"alpha is {alpha!r:.60}, expected a number > 0 or a list of them")
    return [float(value) for value in numbers]


def _seeds(name: str, seeds: object) -> list[int]:
    if isinstance(seeds, Integral) and not isinstance(seeds, bool):
        _require_few(int(seeds))
        return list(range(int(seeds)))
    values = seeds if isinstance(seeds, (Sequence, np.ndarray)) and not isinstance(seeds, str) else [seeds]
    _require_few(len(values))
    numbers = [value for value in values if isinstance(value, Integral) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        hint = ", or weights" if name == "data_seeds" else ""
        raise ConfigError(f"{name} is {seeds!r}, expected how many, or a list of integers{hint}")
    return [int(value) for value in numbers]


def _require_few(members: int) -> None:
    if members > MOST_MEMBERS:
        raise ConfigError(
            f"seeds and alpha make {members} members, more than {MOST_MEMBERS} in one run: give fewer, or a list of "
            "seeds"
        )
