"""A store whose files come from anybody: nothing outside is removed, nothing hangs, and the sound runs go on."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_runs import made_sweep

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.axes import axis_values, seed_values
from lazy_lightning.experiments.batching import MemberCost
from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.experiments.sweep import BatchLimits, Sweep
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_spec import SweepSpec, parse_sweep_spec
from lazy_lightning.runs import load_runs
from lazy_lightning.runs.index import FILE_NAME, _index_text, scan
from lazy_lightning.runs.load import without_damaged_arrays

ONE = MemberCost(1, 1.0, 1.0)
PATHS = st.one_of(
    st.sampled_from(["../victim", "/victim", "..", ".", "a/../../victim", "link", "version_0/../../victim", "", "~"]),
    st.text(max_size=20),
)


def made(folder: Path, **options: Any) -> Path:
    return made_sweep(folder, **{"widths": (30, 100), "scales": (0.1, 1.0), "seeds": 2, "arrays": False, **options})


def swept(folder: Path, run: Path) -> Sweep:
    """A sweep over the members of a run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    members = [(float(row["alpha"]), int(row["seed"])) for row in scan(run)]
    return Sweep(SweepSpec("mine"), (ConfigGroup.of(config, {}, members),), SweepFolder(folder))


def planned(sweep: Sweep, run: Path) -> Path:
    """The same run, as the sweep itself would have made it, with its plan."""
    (batch,) = sweep.batches([], lambda group: ONE, BatchLimits(1e9, 1, None))
    sweep.folder.keep_plan(batch)
    shutil.copytree(run, sweep.folder.path / batch.key)
    return sweep.folder.path / batch.key


# ---------------------------------------------------------------------- whose checkpoints a sweep removes


def test_a_sweep_removes_the_checkpoints_of_its_own_runs_alone(tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    (tmp_path / "outside").mkdir()
    shutil.copytree(store / "version_0", tmp_path / "outside/run")
    sweep = swept(store, store / "version_0")
    own = planned(sweep, store / "version_0")
    (store / "link").symlink_to(tmp_path / "outside/run")
    others = [store / "version_0", store / "version_1", tmp_path / "outside/run"]
    for run in (own, *others):
        (run / "checkpoint.ckpt").write_text("weights")
    sweep.drop_checkpoints(sweep.status(sweep.rows()))
    assert not (own / "checkpoint.ckpt").exists()
    assert all((run / "checkpoint.ckpt").exists() for run in others)


@given(name=PATHS, where=st.sampled_from(["summary", "index", "plan"]))
@example("../victim", "summary")
@example("../victim", "index")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_name_in_a_file_leads_out_of_the_store(tmp_path_factory: Any, name: str, where: str) -> None:
    root = tmp_path_factory.mktemp("hostile")
    store = made(root / "store", widths=(30,), scales=(1.0,))
    shutil.copytree(store / "version_0", root / "victim")
    (root / "victim/checkpoint.ckpt").write_text("weights")
    (store / "link").symlink_to(root / "victim")
    sweep = swept(store, store / "version_0")
    if where == "summary":
        path = store / "version_0/summary.json"
        content = json.loads(path.read_text())
        for member in content["members"]:
            member["run"] = name
        path.write_text(json.dumps(content))
    elif where == "index":
        load_runs(store)
        runs = json.loads((store / FILE_NAME).read_text())["runs"]
        for row in runs["version_0"]["rows"]:
            row["run"] = name
        runs[name] = runs["version_0"]
        (store / FILE_NAME).write_text(_index_text(runs))
    elif name and "/" not in name and "\0" not in name and len(name.encode(errors="replace")) < 200:
        (store / "plan").mkdir(exist_ok=True)
        try:
            (store / "plan" / f"{name}.yaml").write_text("model: {}")
        except (OSError, UnicodeError):
            return
    rows = sweep.rows()
    assert {str(row["run"]) for row in rows} <= {"version_0", "link"}
    assert not sweep.folder.is_own(name)
    sweep.drop_checkpoints(sweep.status(rows))
    assert (root / "victim/checkpoint.ckpt").exists()


def test_a_kernel_that_was_followed_for_another_depth_hides_none_that_is_lost(tmp_path: Path) -> None:
    config = yaml.safe_load((made(tmp_path / "made") / "version_0/config.yaml").read_text())
    groups = []
    for depth in (2, 3):
        own = json.loads(json.dumps(config))
        own["model"]["init_args"]["network"]["init_args"]["depth"] = depth
        groups.append(ConfigGroup.of(own, {"depth": depth}, [(1.0, 0)]))
    sweep = Sweep(SweepSpec("mine", kernels=("end",)), tuple(groups), SweepFolder(tmp_path / "sweep"))
    who = {"alpha": 1.0, "seed": 0, "h": 30, "status": "finished"}
    networks = [
        {**who, "run": f"r{i}", "family": f.key, "id": f.member_id((1.0, 0)), "model": "network"}
        for i, f in enumerate(groups)
    ]
    (sweep.folder.path / "r0").mkdir(parents=True)
    (sweep.folder.path / "r0/checkpoint.ckpt").touch()
    (kernel,) = sweep.kernels_at_end(networks)
    rows = [
        *networks,
        {**who, "run": "k", "family": kernel.key, "id": kernel.member_id((1.0, 0)), "model": "kernel at end"},
    ]
    assert sweep.runs_without_checkpoint(rows) == ["r1"]


# ---------------------------------------------------------------------- what a store is


def test_links_to_the_parent_list_no_run_twice(tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    (store / "again").symlink_to(store)
    (store / "above").symlink_to(tmp_path)
    (store / "version_9").symlink_to(store / "version_0")
    assert set(load_runs(store, duplicates=True)["run"]) == {"version_0", "version_1"}
    assert len(load_runs([store, tmp_path / "runs/again"], duplicates=True)) == len(load_runs(store, duplicates=True))


def test_a_folder_of_another_program_is_no_run(tmp_path: Path) -> None:
    made(tmp_path, widths=(30,))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.yaml").write_text("learning_rate: 0.1\n")
    (tmp_path / "theirs/summary.json").write_text('{"loss": 1}')
    said: list[str] = []
    assert set(load_runs(tmp_path, on_damaged=said.append)["run"]) == {"version_0"}
    assert len(said) == 1
    assert "theirs" in said[0]


def test_an_unreadable_folder_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    made(tmp_path, widths=(30,))
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    said: list[str] = []
    assert len(load_runs(tmp_path, on_damaged=said.append)) == 4
    assert len(said) == 1
    assert "locked cannot be read (Permission denied)" in said[0]


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        "[" * 10_000,
        "model: {init_args: {seeds: 100000000}}\ndata: {}\n",
        "model: {init_args: {seeds: 1e8}}\ndata: x\n",
    ],
    ids=["aliases", "brackets", "seeds", "seeds as a float"],
)
def test_no_configuration_hangs_a_store(tmp_path: Path, content: str) -> None:
    made(tmp_path)
    (tmp_path / "version_1/config.yaml").write_text(content)
    said: list[str] = []
    assert set(load_runs(tmp_path, on_damaged=said.append)["run"]) == {"version_0"}
    assert len(said) == 1
    assert "version_1/config.yaml" in said[0]


# ---------------------------------------------------------------------- malformed files


FIELDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    file=st.sampled_from(["summary.json", "failure.json", "config.yaml", "index.json"]),
    seed=st.integers(0, 2**32),
    value=FIELDS,
    how=st.sampled_from(["flip", "cut", "drop", "replace"]),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_malformed_files_are_told_in_a_sentence(
    tmp_path_factory: Any, file: str, seed: int, value: Any, how: str
) -> None:
    rng = random.Random(seed)
    store = made(tmp_path_factory.mktemp("malformed"), scales=(1.0,), failed=[0])
    (store / "version_1/failure.json").write_text('{"schema": 1, "reason": "none"}')
    load_runs(store)
    path = store / file if file == "index.json" else store / "version_1" / file
    text = path.read_text()
    if how == "cut":
        path.write_text(text[: rng.randrange(len(text))])
    elif how == "flip":
        raw = bytearray(text.encode())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(raw))
    else:
        content = yaml.safe_load(text)
        place = content
        while isinstance(place, (dict, list)) and place and rng.random() < 0.7:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or rng.random() < 0.3:
                if how == "drop":
                    del place[key]
                else:
                    place[key] = value
                break
            place = place[key]
        path.write_text(json.dumps(content))
    said: list[str] = []
    runs = load_runs(store, on_damaged=said.append)
    assert "version_0" in set(runs["run"])
    assert all("\n" not in sentence and "version_1" in sentence for sentence in said)


@pytest.mark.parametrize("file", ["curves.parquet", "outputs.safetensors", "kernels.safetensors"])
def test_malformed_arrays_are_left_out_by_name(tmp_path: Path, file: str) -> None:
    store = made(tmp_path, arrays=True)
    path = store / "version_1" / file
    whole = path.read_bytes()
    runs = load_runs(store)
    rng = random.Random(0)
    for trial in range(30):
        raw = bytearray(whole)
        if trial % 3 == 0:
            raw = raw[: rng.randrange(len(raw))]
        else:  # the headers, where types and shapes are told, are at the start and the end
            at = rng.randrange(min(600, len(raw)))
            raw[at if trial % 3 == 1 else -1 - at] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(raw))
        said: list[str] = []
        sound = without_damaged_arrays(runs, said.append)
        assert "version_0" in set(sound["run"])
        assert set(sound["run"]) == {"version_0", "version_1"} or f"version_1/{file}" in said[0]


def test_equal_ids_have_equal_values(tmp_path: Path) -> None:
    """The error of an average over a run's seeds is the run's, not a member's."""
    made(tmp_path, widths=(30,), test__ensemble_error=0.05)
    runs = load_runs(tmp_path)
    assert "test/ensemble_error" not in runs
    assert set(runs["run/test/ensemble_error"]) == {0.05}
    assert set(runs.curves.load(["run/test/ensemble_error"])["run/test/ensemble_error"]) == {0.05}
    assert "test/ensemble_error" not in runs.curves.load()


# ---------------------------------------------------------------------- absurd sweeps


@pytest.mark.parametrize(
    "spec", [10**9, "1e9", 1e9, [2**63], {"from": 1, "to": 2, "points": 10**9, "spacing": "linear"}]
)
def test_absurd_seeds_are_refused_at_once(spec: Any) -> None:
    with pytest.raises(ConfigError):
        seed_values(spec)


def test_absurd_grids_are_refused_at_once() -> None:
    axes = {f"model.{name}": list(range(1000)) for name in "abc"}
    with pytest.raises(ConfigError, match="the grid has 1000000000 configurations"):
        parse_sweep_spec({"grid": axes}, "mine")
    with pytest.raises(ConfigError, match="expected 1000000 at most"):
        axis_values("x", {"from": 1.0, "to": 10.0, "per_decade": 10**6})
    assert len(axis_values("x", list(range(100_000)))) == 100_000


@pytest.mark.parametrize("content", ["", "model: [", "model: {}", "model: {init_args: {alpha: x}}", "[]", "\x00"])
def test_a_damaged_plan_is_made_anew(tmp_path: Path, content: str) -> None:
    store = made(tmp_path / "runs")
    sweep = swept(tmp_path / "sweep", store / "version_0")
    (batch,) = sweep.batches([], lambda group: ONE, BatchLimits(1e9, 1, None))
    sweep.folder.keep_plan(batch)
    sweep.folder.config_path(batch.key).write_text(content)
    assert [b.key for b in sweep.batches([], lambda group: ONE, BatchLimits(1e9, 1, None))] == [batch.key]


def test_a_damaged_summary_of_a_sweep_is_trained_again(tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    sweep = swept(tmp_path / "sweep", store / "version_0")
    own = planned(sweep, store / "version_0")
    assert sweep.batches(sweep.rows(), lambda group: ONE, BatchLimits(1e9, 1, None)) == []
    (own / "summary.json").write_text('{"schema": 1')
    (batch,) = sweep.batches(sweep.rows(), lambda group: ONE, BatchLimits(1e9, 1, None))
    assert sweep.folder.prepare_run(batch.key).path == own
