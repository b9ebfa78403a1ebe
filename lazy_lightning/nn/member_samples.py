"""MemberSamples: inputs or targets in which members differ, such as training samples of several data seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor


class OwnSets:
    """Which data set each of E members has; the groups are read to the host once.

    Args:
        own: (E,) int64.
    """

    def __init__(self, own: Tensor) -> None:
        self.own = own

    @cached_property
    def groups(self) -> list[tuple[int, Tensor]]:
        """Each set that some member has, with these members."""
        return [(i, (self.own == i).nonzero().squeeze(1)) for i in sorted(set(self.own.tolist()))]

    @cached_property
    def order(self) -> Tensor:
        """(E,) where each member is among the members of all groups, one after the other."""
        return torch.cat([rows for _, rows in self.groups]).argsort()


class MemberSamples:
    """D sets of n samples, and which of them each of E members has.

    It stands for a tensor (n, ...) that all members share: it has its length, is indexed by samples, and moves between
    devices and precisions. :class:`~lazy_lightning.nn.members.MemberNetwork` evaluates each member on its own samples.

    Args:
        sets: (D, n, ...)
        own: (E,) int64, the set of each member.

    >>> samples = MemberSamples(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1, 1]))
    >>> len(samples), samples[:1].by_member
    (2, tensor([[1.],
            [3.],
            [3.]]))
    """

    def __init__(self, sets: Tensor, own: Tensor | OwnSets) -> None:
        self.sets, self._members = sets, own if isinstance(own, OwnSets) else OwnSets(own)

    @property
    def own(self) -> Tensor:
        """(E,) int64, the set of each member."""
        return self._members.own

    @classmethod
    def of(cls, sets: Sequence[Tensor], own: Tensor) -> MemberSamples | Tensor:
        """Returns the samples of equally large sets (n, ...), or the one tensor if all sets are equal."""
        first = sets[0]
        return first if all(torch.equal(first, other) for other in sets[1:]) else cls(torch.stack(list(sets)), own)

    def __len__(self) -> int:
        return self.sets.shape[1]

    def __getitem__(self, part: slice) -> MemberSamples:
        return MemberSamples(self.sets[:, part], self._members)

    @cached_property
    def by_member(self) -> Tensor:
        """(E, n, ...) the samples of each member, gathered once."""
        return self.sets[self.own]

    def select(self, rows: Tensor | slice) -> MemberSamples:
        """The samples of some members."""
        return MemberSamples(self.sets, self.own[rows])

    def rows_by_set(self) -> list[tuple[Tensor, Tensor]]:
        """The members (int64) and the samples (n, ...) of each set that some member has."""
        return [(rows, self.sets[i]) for i, rows in self._members.groups]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """(E, ...) of the parts of the members of each set, in the order of :meth:`rows_by_set`."""
        return torch.cat(list(parts))[self._members.order]

    def to(self, *args: Any) -> MemberSamples:
        """The same on another device or in another precision, as ``Tensor.to``; the set of each member stays int64."""
        sets = self.sets.to(*args)
        return MemberSamples(sets, self.own.to(sets.device))

    def is_floating_point(self) -> bool:
        """Whether the samples are real numbers."""
        return self.sets.is_floating_point()

    @property
    def dtype(self) -> torch.dtype:
        """The type of the samples."""
        return self.sets.dtype

    @property
    def device(self) -> torch.device:
        """The device of the samples."""
        return self.sets.device


Samples = Tensor | MemberSamples
"""Samples (n, ...) that all members share, or of each member its own."""


def select_members(samples: Tensor, rows: Tensor | slice) -> Tensor:
    """The samples of some members, where :class:`MemberSamples` may stand for a tensor."""
    given = cast(Samples, samples)
    return cast(Tensor, given.select(rows)) if isinstance(given, MemberSamples) else given
