from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lazy_lightning.data.splits import Seeds, Sizes, SplitIndices, draw_splits, interleave
from lazy_lightning.errors import DataError


@st.composite
def labelled_sizes(draw: st.DrawFn) -> tuple[Tensor, Sizes]:
    counts = draw(st.lists(st.integers(1, 25), min_size=2, max_size=5))
    classes = torch.cat([torch.full((count,), 3 * j - 2) for j, count in enumerate(counts)])
    classes = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(sum(counts)))]
    test = draw(st.integers(0, len(classes)))
    kernel = draw(st.integers(0, len(classes) - test))
    val = draw(st.integers(0, len(classes) - test - kernel))
    return classes, Sizes(draw(st.integers(0, len(classes) - test - kernel - val)), test, kernel, val)


def dealt_fairly(classes: Tensor, candidates: Tensor, chosen: Tensor) -> bool:
    """No class with samples left over is more than one behind the most frequent class."""
    values = torch.unique(classes[candidates])
    if len(chosen) == 0:
        return True
    took = (classes[chosen][None] == values[:, None]).sum(1)
    had = (classes[candidates][None] == values[:, None]).sum(1)
    return bool((took >= torch.minimum(had, took.max() - 1)).all())


def without(candidates: Tensor, chosen: Tensor) -> Tensor:
    return candidates[~torch.isin(candidates, chosen)]


@settings(max_examples=60, deadline=None)
@given(labelled_sizes())
def test_splits_are_disjoint_sized_and_balanced(case: tuple[Tensor, Sizes]) -> None:
    classes, sizes = case
    drawn = draw_splits(classes, sizes, Seeds())
    assert Sizes(*map(len, drawn)) == sizes
    assert len(torch.cat(list(drawn)).unique()) == sum(sizes)
    rest = torch.arange(len(classes))
    for chosen in (drawn.test, drawn.kernel, drawn.train, drawn.val):
        assert dealt_fairly(classes, rest, chosen)
        rest = without(rest, chosen)


@settings(max_examples=30, deadline=None)
@given(labelled_sizes(), st.integers(0, 5))
def test_a_smaller_training_set_is_the_beginning_of_a_larger(case: tuple[Tensor, Sizes], seed: int) -> None:
    classes, sizes = case
    larger = draw_splits(classes, sizes, Seeds(seed, seed, seed))
    smaller = draw_splits(classes, sizes._replace(train=sizes.train // 2), Seeds(seed, seed, seed))
    assert torch.equal(smaller.train, larger.train[: sizes.train // 2])
    assert torch.equal(smaller.test, larger.test)


@settings(max_examples=30, deadline=None)
@given(labelled_sizes())
def test_every_prefix_of_an_interleaved_order_is_balanced(case: tuple[Tensor, Sizes]) -> None:
    classes, _ = case
    order = interleave(classes, torch.Generator().manual_seed(1))
    assert torch.equal(order.sort().values, torch.arange(len(classes)))
    assert all(dealt_fairly(classes, torch.arange(len(classes)), order[:count]) for count in range(1, len(classes)))


@pytest.mark.parametrize(
    ("seeds", "changed"),
    [
        (Seeds(train=1), {"train", "val"}),
        (Seeds(val=1), {"val"}),
        (Seeds(kernel=1), {"train", "kernel", "val"}),
        (Seeds(test=1), {"train", "kernel", "test", "val"}),
    ],
)
def test_each_set_depends_on_its_seeds_only(seeds: Seeds, changed: set[str]) -> None:
    classes = torch.arange(300) % 4
    base, other = (draw_splits(classes, Sizes(60, 50, 40, 30), s) for s in (Seeds(), seeds))
    assert {name for name in SplitIndices._fields if set_of(base, name) != set_of(other, name)} == changed


def set_of(drawn: SplitIndices, name: str) -> set[int]:
    return set(getattr(drawn, name).tolist())


def test_official_parts_are_respected() -> None:
    classes = torch.arange(100) % 5
    official = torch.arange(100) >= 70
    drawn = draw_splits(classes, Sizes(40, 30, 30), Seeds(), official)
    assert set_of(drawn, "test") == set(range(70, 100))
    assert set_of(drawn, "train") | set_of(drawn, "kernel") == set(range(70))
    with pytest.raises(DataError, match=r"n_test = 31 .* official test part has 30"):
        draw_splits(classes, Sizes(1, 31), Seeds(), official)
    with pytest.raises(DataError, match=r"n_train \+ n_kernel = 71 .* official train part has 70"):
        draw_splits(classes, Sizes(70, 1, 1), Seeds(), official)


def test_too_many_samples_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"= 12 samples are asked for, but the data has 10"):
        draw_splits(torch.arange(10) % 2, Sizes(6, 5, 1), Seeds())
