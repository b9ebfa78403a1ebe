"""What a sweep wants, given what its store holds: on rows that were made up, without any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.batching import MemberCost
from lazy_lightning.experiments.config_group import ConfigGroup, Member
from lazy_lightning.experiments.sweep import BatchLimits, Sweep, completed_ids
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_spec import Bisection, SweepSpec

CONFIG = {
    "trainer": {"precision": "64-true"},
    "model": {
        "class_path": "lazy_lightning.modules.FlowModule",
        "init_args": {"network": {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": 16}}},
    },
    "data": {"class_path": "lazy_lightning.data.Digits", "init_args": {"n_train": 40}},
}
ALL = [(alpha, seed) for alpha in (0.1, 1.0) for seed in (0, 1, 2)]
ONE = MemberCost(1, 1.0, 1.0)
STATES = st.sampled_from(["finished", "failed", "unfinished"])


def swept(folder: Path, members: Sequence[Member] = ALL, **declared: Any) -> Sweep:
    return Sweep(SweepSpec("mine", **declared), (ConfigGroup.of(CONFIG, {}, members),), SweepFolder(folder))


def row(group: ConfigGroup, member: Member, status: str = "finished", run: str = "r", **columns: Any) -> dict[str, Any]:
    alpha, seed = member
    who = {"run": run, "id": group.member_id(member), "family": group.key, "alpha": alpha, "seed": seed, "h": 16}
    reason = "non_finite" if status == "failed" else "max_steps"
    return {**who, "model": "network", "status": status, "reason": reason, **columns}


def batches(sweep: Sweep, rows: Sequence[Mapping[str, Any]], retry: bool = False, most: int | None = None) -> list[Any]:
    return sweep.batches(rows, lambda group: ONE, BatchLimits(1e9, 1, most), retry)


# ---------------------------------------------------------------------- what is still to be trained


@given(st.lists(STATES | st.none(), min_size=6, max_size=6), st.booleans())
def test_what_is_pending_is_what_is_neither_finished_nor_failed(states: list[str | None], retry: bool) -> None:
    sweep = swept(Path("nowhere"))
    group = sweep.networks[0]
    rows = [row(group, m, s) for m, s in zip(ALL, states, strict=True) if s is not None]
    found = [member for batch in batches(sweep, rows, retry) for member in batch.members]
    assert len(found) == len(set(found))
    ended = {"finished"} if retry else {"finished", "failed"}
    assert set(found) == {m for m, s in zip(ALL, states, strict=True) if s not in ended}
    sweep_status = sweep.status(rows, retry)
    assert len(sweep_status.wanted) == 6
    assert len(sweep_status.finished) == states.count("finished")
    assert len(sweep_status.failed) == (0 if retry else states.count("failed"))


def test_a_member_that_was_trained_again_counts_as_finished() -> None:
    sweep = swept(Path("nowhere"))
    rows = [row(sweep.networks[0], ALL[0], "failed"), row(sweep.networks[0], ALL[0], "finished", "again")]
    assert len(completed_ids(rows)) == len(completed_ids(rows, retry_failed=True)) == 1
    assert (len(sweep.status(rows).finished), len(sweep.status(rows).failed)) == (1, 0)


def test_rows_of_other_sweeps_do_not_count() -> None:
    sweep = swept(Path("nowhere"))
    other = ConfigGroup.of({**CONFIG, "data": {}}, {}, ALL)
    assert len(sweep.status([row(other, m) for m in ALL]).finished) == 0


def test_a_plan_that_has_been_made_is_kept(tmp_path: Path) -> None:
    """After a stop the same runs are gone on with, even if memory or workers would now divide them otherwise."""
    sweep = swept(tmp_path)
    for batch in batches(sweep, [], most=2):
        sweep.folder.keep_plan(batch)
    planned = {batch.key for batch in batches(sweep, [], most=2)}
    assert len(planned) == 3
    left = batches(sweep, [])
    assert {batch.key for batch in left} == planned
    done = [row(sweep.networks[0], m) for m in left[0].members]
    assert {batch.key for batch in batches(sweep, done)} == planned - {left[0].key}
    wider = swept(tmp_path, [*ALL, (5.0, 0)])
    assert {batch.key for batch in batches(wider, [])} > planned
    assert sorted(m for b in batches(wider, []) for m in b.members) == sorted([*ALL, (5.0, 0)])


@given(st.lists(st.lists(st.sampled_from(ALL), min_size=1, unique=True), max_size=4), st.data())
def test_plans_that_overlap_train_no_member_twice(tmp_path_factory: Any, plans: list[list[Member]], data: Any) -> None:
    """As when runs have been tried again, and all of them were removed then."""
    folder = tmp_path_factory.mktemp("sweep")
    for members in plans:
        part = swept(folder, members)
        for batch in part.batches([], lambda group: ONE, BatchLimits(1e9, 1, data.draw(st.integers(1, 4)))):
            part.folder.keep_plan(batch)
    found = [member for batch in batches(swept(folder), []) for member in batch.members]
    assert sorted(found) == sorted(ALL)


# ---------------------------------------------------------------------- kernels


def with_checkpoint(sweep: Sweep, run: str) -> None:
    path = sweep.folder.checkpoint(run)
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "config.yaml").write_text(yaml.safe_dump(dict(sweep.networks[0].config)))


def test_kernels_at_initialisation_have_no_alpha(tmp_path: Path) -> None:
    sweep = swept(tmp_path, kernels=("init",))
    network, kernel = batches(sweep, [])
    assert network.members == ALL
    assert kernel.members == [(1.0, 0), (1.0, 1), (1.0, 2)]
    arguments = kernel.config["model"]["init_args"]
    assert (arguments["at"], arguments["checkpoint"]) == ("init", None)


def test_kernels_at_initialisation_have_an_alpha_without_centering(tmp_path: Path) -> None:
    config = {**CONFIG, "model": {**CONFIG["model"]}}  # type: ignore[dict-item]
    config["model"]["init_args"] = {**CONFIG["model"]["init_args"], "centering": False}  # type: ignore[index]
    sweep = Sweep(SweepSpec("mine", kernels=("init",)), (ConfigGroup.of(config, {}, ALL),), SweepFolder(tmp_path))
    assert [batch.members for batch in batches(sweep, [])] == [ALL, ALL]


def test_kernels_at_the_end_are_of_finished_members(tmp_path: Path) -> None:
    sweep = swept(tmp_path, kernels=("end",))
    network = sweep.networks[0]
    with_checkpoint(sweep, "a")
    states = dict.fromkeys(ALL, "finished") | {(0.1, 1): "failed"}
    rows = [row(network, m, states[m], "a") for m in ALL]
    ends = batches(sweep, rows)
    assert sorted(m for b in ends for m in b.members) == sorted(m for m in ALL if m != (0.1, 1))
    assert {b.config["model"]["init_args"]["checkpoint"] for b in ends} == {str(tmp_path / "a/checkpoint.ckpt")}
    # trained again in another run, whose checkpoint is another
    with_checkpoint(sweep, "b")
    rows += [row(network, (0.1, 1), "finished", "b")]
    again = {m: b.config["model"]["init_args"]["checkpoint"] for b in batches(sweep, rows) for m in b.members}
    assert len(again) == 6
    assert {m for m, c in again.items() if "/b/" in c} == {(0.1, 1)}
    # nothing while the run is under way, or without its checkpoint
    assert not sweep.kernels_at_end([*rows[:5], row(network, ALL[5], "unfinished", "a")])
    sweep.folder.checkpoint("a").unlink()
    assert {m for f in sweep.kernels_at_end(rows) for m in f.members} == {(0.1, 1)}
    assert sweep.runs_without_checkpoint(rows) == ["a"]
    assert len(sweep.status(rows).wanted) == 7


def test_a_member_that_two_runs_have_finished_has_one_kernel(tmp_path: Path) -> None:
    sweep = swept(tmp_path, kernels=("end",))
    for run in ("a", "b"):
        with_checkpoint(sweep, run)
    rows = [row(sweep.networks[0], m, "finished", run) for run in ("a", "b") for m in ALL]
    assert sorted(m for b in batches(sweep, rows) for m in b.members) == sorted(ALL)


# ---------------------------------------------------------------------- bisection


def searching(folder: Path, seeds: Sequence[int] = (0, 1)) -> Sweep:
    bisect = Bisection("sqrt_h_alpha", 0.4, 40.0, column="drift", level=0.5, tolerance=0.01, points=3)
    return swept(folder, [(1.0, seed) for seed in seeds], bisect=bisect)


FIRST = (0.1, 1.0, 10.0)
"""alpha of the first round: sqrt(16) = 4."""


def test_a_bisection_begins_with_its_ends(tmp_path: Path) -> None:
    (batch,) = batches(searching(tmp_path), [])
    assert batch.alphas == FIRST


@pytest.mark.parametrize("odd", [0.3, 1 / 3, 7.123456789012])
def test_scales_are_found_again_whatever_the_width(tmp_path: Path, odd: float) -> None:
    """alpha is a rounded scale / sqrt(h), and the scale has to come back from it."""
    bisect = Bisection("sqrt_h_alpha", odd, 1000 * odd, column="drift", points=5, tolerance=0.001)
    for width in (3, 17, 1000):
        network = {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": width}}
        model = {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"network": network}}
        group = ConfigGroup.of({**CONFIG, "model": model}, {}, [(1.0, 0)])
        sweep = Sweep(SweepSpec("mine", bisect=bisect), (group,), SweepFolder(tmp_path))
        rows: list[dict[str, Any]] = []
        for _ in range(20):
            new = [m for b in batches(sweep, rows) for m in b.members]
            if not new:
                break
            rows += [row(group, m, drift=0.5 * (10 * odd / (m[0] * width**0.5)) ** 0.9) for m in new]
        found = sweep.search(group, rows)
        assert found is not None
        assert found.complete
        assert found.interval is not None
        assert found.interval[0] <= 10 * odd * (1 + 1e-9)
        assert found.interval[1] >= 10 * odd * (1 - 1e-9)
        assert len(rows) <= 5 * 5


def test_a_bisection_waits_for_all_of_its_seeds(tmp_path: Path) -> None:
    sweep = searching(tmp_path)
    group = sweep.networks[0]
    drifts = dict(zip(FIRST, (2.0, 0.6, 0.1), strict=True))
    one_seed = [row(group, (alpha, 0), drift=drifts[alpha]) for alpha in FIRST]
    (batch,) = batches(sweep, one_seed)
    assert batch.members == [(alpha, 1) for alpha in FIRST]
    others = [row(group, (alpha, seed), drift=9.0) for alpha in FIRST for seed in (5, 6)]
    assert batches(sweep, [*one_seed, *others]) == [batch]  # seeds that are not its own
    twice = [row(group, (alpha, 0), "failed", "old") for alpha in FIRST]
    assert batches(sweep, [*one_seed, *twice]) == [batch]  # one seed that was trained twice
    assert batches(sweep, [*twice, *one_seed]) == [batch]
    whole = [*one_seed, *[row(group, (alpha, 1), drift=drifts[alpha]) for alpha in FIRST]]
    (batch,) = batches(sweep, whole)
    assert all(1.0 < alpha < 10.0 for alpha in batch.alphas)


def test_a_failed_seed_does_not_count_in_the_mean(tmp_path: Path) -> None:
    sweep = searching(tmp_path)
    group = sweep.networks[0]
    rows = [row(group, (alpha, 0), drift=drift) for alpha, drift in zip(FIRST, (2.0, 0.6, 0.1), strict=True)]
    rows += [row(group, (alpha, 1), "failed") for alpha in FIRST]
    (batch,) = batches(sweep, rows)
    assert all(1.0 < alpha < 10.0 for alpha in batch.alphas)


def test_a_column_that_nobody_has_observed(tmp_path: Path) -> None:
    sweep = searching(tmp_path)
    rows = [row(sweep.networks[0], (FIRST[0], 0), drift=None)]  # observed, and not a number
    assert batches(sweep, rows)
    del rows[0]["drift"]
    with pytest.raises(ConfigError, match="bisect uses the column drift, which these runs have not observed"):
        batches(sweep, rows)
