"""Groups that differ in one seed of their data share a run with data seeds, and their members keep their identities."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from experiments.test_sweep_plan import config

from lazy_lightning.experiments.batching import Batch, ConfigGroup, Member, MemberCost, batch_label, plan_batches
from lazy_lightning.experiments.data_seed_axis import parts_of
from lazy_lightning.runs import configuration

COST = MemberCost(10, 1.0, 1.0)
MEMBERS = [(alpha, seed) for alpha in (0.1, 1.0) for seed in (0, 1)]


def group(members: list[Member] = MEMBERS, **seeds: int) -> ConfigGroup:
    """The group of some seeds of the data, or of the batches."""
    given: dict[str, Any] = copy.deepcopy(config())
    for name, seed in seeds.items():
        part = given["model"] if name == "batch_seed" else given["data"]
        part["init_args"][name] = seed
    keys = {f"{'model' if name == 'batch_seed' else 'data'}.{name}": seed for name, seed in seeds.items()}
    return ConfigGroup.of(given, keys, members)


def plan(*groups: ConfigGroup, most: int | None = None, joins: Any = lambda parts: True) -> list[Batch]:
    return plan_batches(groups, lambda one: COST, 1e9, 1, most, joins)


def identities(batch: Batch) -> list[str]:
    """Of the members of a batch's run, as the run store computes them from its configuration."""
    made = batch.config
    pairs = zip(configuration.members(made), configuration.data_seeds(made) or [], strict=True)
    families = {
        s: configuration.family(configuration.with_data_seed(made, s)) for s in configuration.data_seeds(made) or []
    }
    return [configuration.member(configuration.point(families[data], a), seed) for (a, seed), data in pairs]


@pytest.mark.parametrize("name", ["train_seed", "teacher_seed", "batch_seed"])
def test_members_keep_their_identities(name: str) -> None:
    groups = [group(**{name: seed}) for seed in (4, 7, 9)]
    (batch,) = plan(*groups)
    assert sorted(identities(batch)) == sorted(one.member_id(member) for one in groups for member in MEMBERS)
    assert len(batch.members) == 12 == batch.seconds
    assert batch_label(batch) == f"{name} [4, 7, 9] (2 alphas 0.1 to 1 x 2 seeds x 3 data seeds)"
    keys = batch.config["model"]["init_args"]["data_seed_keys"]
    assert keys == (None if name == "train_seed" else [name])


def test_other_differences_are_not_joined() -> None:
    """Two widths, other members, or two seeds at once are no axis of one run."""
    others = [group(train_seed=0), group(MEMBERS[:3], train_seed=1), group(train_seed=2, teacher_seed=2)]
    wide = config(width=9)
    wide["data"]["init_args"]["train_seed"] = 3
    batches = plan(*others, ConfigGroup.of(wide, {}, MEMBERS))
    assert not any(batch.parts for batch in batches)
    assert not any(batch.parts for batch in plan(group(train_seed=0), group(train_seed=1), joins=None))
    assert not any(batch.parts for batch in plan(group(train_seed=0), group(train_seed=1), joins=lambda parts: False))


def test_one_seed_is_joined_for_each_value_of_the_other() -> None:
    groups = [group(train_seed=a, teacher_seed=b) for a in (0, 1, 2) for b in (5, 6)]
    batches = plan(*groups)
    assert sorted(batch.config["data"]["init_args"]["teacher_seed"] for batch in batches) == [5, 6]
    assert all(batch.config["model"]["init_args"]["data_seeds"] == [0, 1, 2] for batch in batches)


@pytest.mark.parametrize(("most", "sizes"), [(8, [4, 8]), (4, [4, 4, 4]), (3, [2] * 6), (None, [12])])
def test_a_limit_of_members_holds(most: int | None, sizes: list[int]) -> None:
    groups = [group(train_seed=seed) for seed in (0, 1, 2)]
    batches = plan(*groups, most=most)
    assert sorted(len(batch.members) for batch in batches) == sizes
    places = [place for batch in batches for place in batch.places]
    assert len(places) == len(set(places)) == 12


def test_members_have_room_for_samples_of_their_own() -> None:
    """Of 12 members with 1 byte each, a budget of 25 bytes holds all alone, and 8 with 2 bytes of samples each."""
    cost = MemberCost(10, 1.0, 1.0, own_samples=2.0)
    batches = plan_batches(
        [group(train_seed=s) for s in (0, 1, 2)], lambda one: cost, 25.0, 1, None, lambda parts: True
    )
    assert sorted((len(batch.members), batch.bytes) for batch in batches) == [(4, 4.0), (8, 24.0)]


def test_halves_and_plans() -> None:
    """A batch of several data sets is divided into these first, and is found again from its stored configuration."""
    groups = [group(train_seed=seed) for seed in (0, 1, 2)]
    (batch,) = plan(*groups)
    one, two = batch.halves()
    assert (one.parts, [part.key for part in two.parts]) == ((), [groups[1].key, groups[2].key])
    assert one.group is groups[0]
    assert one.places | two.places == batch.places
    by_key = {part.key: part for part in groups}
    assert parts_of(batch.config, by_key) == groups
    assert Batch.of(parts_of(two.config, by_key) or [], two.alphas, two.seeds, COST).key == two.key
    del by_key[groups[1].key]
    assert parts_of(batch.config, by_key) is None
