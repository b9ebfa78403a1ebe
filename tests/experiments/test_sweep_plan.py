"""From members to batches: none is lost, none is trained twice, and the budget is kept."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.experiments.batching import (
    Batch,
    ConfigGroup,
    Member,
    MemberCost,
    kernel_group,
    plan_batches,
    rectangles,
    split_rectangle,
)
from lazy_lightning.runs import configuration

alphas = st.lists(st.sampled_from([10.0**k for k in range(-4, 5)]), min_size=1, max_size=9, unique=True)
seeds = st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True)
members = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 1.0, 10.0]), st.integers(0, 5)), min_size=1, max_size=20)
costs = st.builds(MemberCost, st.just(10), st.floats(1.0, 1e6), st.floats(1e-3, 1e3))


def config(width: int = 8, **arguments: Any) -> dict[str, Any]:
    network = {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": width}}
    module = {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"network": network, **arguments}}
    data = {"class_path": "lazy_lightning.data.Digits", "init_args": {"n_train": 40}}
    return {"trainer": {"precision": "64-true", "callbacks": []}, "model": module, "data": data}


def group(width: int, *wanted: Member) -> ConfigGroup:
    return ConfigGroup.of(config(width), {"model.network.width": width}, wanted)


def pairs(parts: Any) -> list[Member]:
    return [(alpha, seed) for some_alphas, some_seeds in parts for alpha in some_alphas for seed in some_seeds]


@given(members)
def test_rectangles_cover_every_member_once(wanted: list[Member]) -> None:
    found = pairs(rectangles(wanted))
    assert len(found) == len(set(found))
    assert set(found) == set(wanted)


@given(members, st.randoms())
def test_rectangles_do_not_depend_on_the_order(wanted: list[Member], random: Any) -> None:
    shuffled = random.sample(wanted, len(wanted))
    assert sorted(rectangles(wanted)) == sorted(rectangles(shuffled))


@given(alphas, seeds, st.integers(1, 40))
def test_parts_fit_and_cover_every_member_once(some: list[float], of: list[int], capacity: int) -> None:
    parts = split_rectangle(some, of, capacity)
    assert sorted(pairs(parts)) == sorted((a, s) for a in some for s in of)
    sizes = [len(a) * len(s) for a, s in parts]
    assert max(sizes) <= capacity
    assert len(parts) == 1 or len(some) * len(of) > capacity  # not divided without need


@given(alphas, seeds)
def test_halves_cover_every_member_once(some: list[float], of: list[int]) -> None:
    batch = Batch(group(8), tuple(some), tuple(of), MemberCost(1, 1.0, 1.0))
    halves = batch.halves()
    assert bool(halves) == (len(batch.members) > 1)
    if halves:
        assert sorted(halves[0].members + halves[1].members) == sorted(batch.members)
        assert all(half.key != batch.key for half in halves)


@given(st.dictionaries(st.integers(1, 4), st.tuples(members, costs), min_size=1), st.data())
def test_plan(wanted: dict[int, tuple[list[Member], MemberCost]], data: Any) -> None:
    budget, workers = data.draw(st.floats(1.0, 1e7)), data.draw(st.integers(1, 4))
    most = data.draw(st.none() | st.integers(1, 10))
    groups = [group(width, *some) for width, (some, _) in wanted.items()]
    prices = {one.key: cost for one, (_, cost) in zip(groups, wanted.values(), strict=True)}
    batches = plan_batches(groups, lambda one: prices[one.key], budget, workers, most)
    for one in groups:
        own = [member for batch in batches if batch.group.key == one.key for member in batch.members]
        assert sorted(own) == sorted(set(one.members))
    total = sum(prices[one.key].seconds * len(one.members) for one in groups)
    for batch in batches:
        alone = len(batch.members) == 1  # what does not fit even by itself is tried
        assert alone or batch.bytes <= budget * (1 + 1e-12)
        assert alone or workers == 1 or batch.seconds <= total / workers * (1 + 1e-9)
        assert most is None or len(batch.members) <= most
        assert configuration.members(batch.config) == batch.members
    assert [b.seconds for b in batches] == sorted((b.seconds for b in batches), reverse=True)
    assert len({batch.key for batch in batches}) == len(batches)


@given(st.dictionaries(st.integers(1, 4), st.tuples(members, costs), min_size=1), st.integers(2, 4), st.floats(0, 10))
def test_even_batches(wanted: dict[int, tuple[list[Member], MemberCost]], workers: int, start: float) -> None:
    """They take a third of a worker's time at most, unless that is less than ten times what a batch takes besides."""
    groups = [group(width, *some) for width, (some, _) in wanted.items()]
    prices = {
        one.key: dataclasses.replace(cost, start=start) for one, (_, cost) in zip(groups, wanted.values(), strict=True)
    }
    share = sum(prices[one.key].seconds * len(one.members) for one in groups) / workers
    batches = plan_batches(groups, lambda one: prices[one.key], 1e18, workers, None, even=True)
    found = [member for batch in batches for member in batch.places]
    assert sorted(found) == sorted((one.key, member) for one in groups for member in set(one.members))
    for batch in batches:
        time = batch.seconds - start
        assert len(batch.members) == 1 or time <= min(share, max(share / 3, 10 * start)) * (1 + 1e-9)


def test_nothing_wanted_is_no_batch() -> None:
    assert plan_batches([], lambda one: MemberCost(1, 1.0, 1.0), 1.0, 2, None) == []


@given(members, st.floats(1.0, 100.0))
def test_ids_do_not_depend_on_the_grouping(wanted: list[Member], budget: float) -> None:
    """A member that is trained with others is the same, so it is not trained again."""
    one = group(8, *wanted)
    for batch in plan_batches([one], lambda f: MemberCost(1, 10.0, 1.0), budget, 1, None):
        key = configuration.family(batch.config)
        ids = {configuration.member(configuration.point(key, a), s) for a, s in configuration.members(batch.config)}
        assert ids == {one.member_id(member) for member in batch.members}


def test_a_batch_does_not_change_its_family() -> None:
    one = group(8, (0.1, 0))
    before = configuration.family(one.config)
    Batch(one, (0.1, 1.0), (0,), MemberCost(1, 1.0, 1.0)).config["model"]["init_args"]["network"]["class_path"] = (
        "other"
    )
    kernel_group(one, "init", None, one.members)
    assert configuration.family(one.config) == before
    assert "alpha" not in one.config["model"]["init_args"]


def test_kernels_of_a_family_are_families_of_their_own() -> None:
    one = group(8, (0.1, 0))
    start, end = kernel_group(one, "init", None, one.members), kernel_group(one, "end", "a/b.ckpt", one.members)
    assert len({one.key, start.key, end.key}) == 3
    assert end.key == kernel_group(one, "end", "elsewhere/b.ckpt", one.members).key
    assert end.key != kernel_group(group(9, (0.1, 0)), "end", "a/b.ckpt", one.members).key
