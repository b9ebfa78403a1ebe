"""Balanced, class-interleaved splits: which sample goes where."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import DataError
from lazy_lightning.seeding import generator


class Sizes(NamedTuple):
    """How many samples each set takes."""

    train: int
    test: int
    kernel: int = 0
    val: int = 0


class Seeds(NamedTuple):
    """One seed per set."""

    train: int = 0
    test: int = 0
    kernel: int = 0
    val: int = 0


class SplitIndices(NamedTuple):
    """Positions ``(n,)`` int64 of the samples of each set, disjoint, in class-interleaved order."""

    train: Tensor
    test: Tensor
    kernel: Tensor
    val: Tensor


def draw_splits(classes: Tensor, sizes: Sizes, seeds: Seeds, official_test: Tensor | None = None) -> SplitIndices:
    """Draw test, then kernel, then training, then validation samples, each balanced over the classes.

    The samples are shuffled within each class and the classes dealt out in turn; the first ``sizes.test``
    are the test set. The rest is shuffled and dealt out anew for the kernel set, what then remains for the
    training set, and what remains of that for the validation set. So the test set depends on its own seed
    only, the kernel set on the test and kernel seeds, the training set on these and its own; and with equal
    seeds a smaller training set is the beginning of a larger one. The validation set comes last, so that one
    can be added to a configuration that has been trained already, and shares no sample with its training set.
    The scheme is that of the published runs of arXiv:1906.08034, except that a class that has run out does not
    end the deal: the other classes go on, so that every sample can be used.

    Args:
        classes: ``(n,)`` int64, the original classes (not the signs) to balance over; all zero for real targets.
        sizes: samples per set.
        seeds: seed per set.
        official_test: ``(n,)`` bool; if given, the test set comes from the samples marked true, the other
            sets from the others.

    Raises:
        DataError: there are fewer samples than required.
    """
    everything = torch.arange(len(classes))
    if official_test is None:
        _check_available(_sum_of(sizes, "train", "test", "kernel", "val"), sum(sizes), len(classes), "the data")
        reserve, rest = everything, None
    else:
        reserve, rest = everything[official_test], everything[~official_test]
        _check_available("n_test", sizes.test, len(reserve), "the official test part")
        _check_available(
            _sum_of(sizes, "train", "kernel", "val"), sum(sizes) - sizes.test, len(rest), "the official train part"
        )
    test, remains = _deal(classes, reserve, sizes.test, generator("data/test", seeds.test))
    candidates = remains if rest is None else rest
    kernel, candidates = _deal(classes, candidates, sizes.kernel, generator("data/kernel", seeds.kernel))
    train, candidates = _deal(classes, candidates, sizes.train, generator("data/train", seeds.train))
    val, _ = _deal(classes, candidates, sizes.val, generator("data/val", seeds.val))
    return SplitIndices(train, test, kernel, val)


def interleave(classes: Tensor, stream: torch.Generator) -> Tensor:
    """An order ``(n,)`` of the samples: shuffled within each class, classes taken in turn while they last.

    >>> order = interleave(torch.tensor([0, 0, 0, 1, 1, 2]), torch.Generator().manual_seed(0))
    >>> torch.tensor([0, 0, 0, 1, 1, 2])[order]
    tensor([0, 1, 2, 0, 1, 0])
    """
    shuffled = torch.randperm(len(classes), generator=stream)
    rank = torch.empty_like(classes)
    for value in torch.unique(classes):
        members = shuffled[classes[shuffled] == value]
        rank[members] = torch.arange(len(members))
    # Sort by rank, then by class: two stable sorts, the less significant key first.
    by_class = torch.argsort(classes, stable=True)
    return by_class[torch.argsort(rank[by_class], stable=True)]


def _deal(classes: Tensor, candidates: Tensor, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """The first ``count`` of the interleaved candidates, and the remaining ones in increasing order."""
    order = candidates[interleave(classes[candidates], stream)]
    return order[:count], order[count:].sort().values


def _sum_of(sizes: Sizes, *names: str) -> str:
    """``n_train + n_test + n_kernel``, with n_val only where there is a validation set."""
    return " + ".join(f"n_{name}" for name in names if name != "val" or sizes.val)


def _check_available(what: str, needed: int, available: int, where: str) -> None:
    if needed > available:
        raise DataError(f"{what} = {needed} samples are asked for, but {where} has {available}: ask for fewer")
