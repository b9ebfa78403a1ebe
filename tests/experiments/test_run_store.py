"""The store: rows of runs found by scanning, kept in an index, and the files behind them."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import made_kernels, made_sweep
from safetensors.numpy import load_file

from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.runs import configuration, load_runs
from lazy_lightning.runs.index import FILE_NAME, scan
from lazy_lightning.runs.run_folder import RunFolder

SCALES = (0.1, 1.0, 10.0)


def made(folder: Path, **options: Any) -> Path:
    return made_sweep(folder, **{"widths": (30, 100), "scales": SCALES, "seeds": 2, **options})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each run has been read."""
    count: Counter[str] = Counter()
    rows = RunFolder.rows

    def counting(run: RunFolder, name: str) -> list[dict[str, Any]]:
        count[name] += 1
        return rows(run, name)

    monkeypatch.setattr(RunFolder, "rows", counting)
    return count


def edit(run: Path, change: Any, name: str = "summary.json") -> None:
    """Writes a run's file anew, some time later."""
    path = run / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


# ---------------------------------------------------------------------- the table


def test_a_row_a_member(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path, failed=[3]))
    assert len(runs) == 12
    assert runs["id"].is_unique
    assert runs["h"].tolist() == [30] * 6 + [100] * 6
    assert runs["alpha"].tolist() == sorted(runs["alpha"][:6]) + sorted(runs["alpha"][6:])
    np.testing.assert_allclose(runs["sqrt_h_alpha"], np.sqrt(runs["h"]) * runs["alpha"], rtol=1e-9)
    assert (runs.groupby("point").size() == 2).all()
    assert set(runs.groupby("family")["h"].nunique()) == {1}
    assert (runs["model.network.width"] == runs["h"]).all()
    assert set(runs["data.labels"]) == {"parity"}
    failed = runs[runs["status"] == "failed"]
    assert failed[["member", "reason"]].drop_duplicates().values.tolist() == [[3, "non_finite"]]
    for run, rows in runs.groupby("run"):
        told = json.loads((tmp_path / str(run) / "summary.json").read_text())["members"]
        for name in ("test/error", "kernel_drift/total", "t1/kernel_drift"):
            expected = [np.nan if told[m][name] is None else told[m][name] for m in rows["member"]]
            np.testing.assert_array_equal(rows[name].astype(float), expected)


def test_ids_are_those_of_the_configuration(tmp_path: Path) -> None:
    made(tmp_path)
    config = yaml.safe_load((tmp_path / "version_0/config.yaml").read_text())
    group = configuration.family(config)
    expected = {configuration.member(configuration.point(group, a), s) for a, s in configuration.members(config)}
    assert set(load_runs(tmp_path / "version_0")["id"]) == expected


def test_how_a_member_ended(tmp_path: Path) -> None:
    run = made(tmp_path, widths=(30,), scales=(1.0,)) / "version_0"

    def status() -> list[tuple[str, str]]:
        return [tuple(row) for row in load_runs(tmp_path)[["status", "reason"]].fillna("-").to_numpy().tolist()]

    edit(run, lambda s: s["members"][1].update(stop="running"))
    assert status() == [("finished", "margins_met"), ("unfinished", "running")]
    assert not RunFolder(run).ended
    RunFolder(run).fail("for a reason")
    assert status() == [("finished", "margins_met"), ("failed", "for a reason")]
    assert RunFolder(run).ended
    (run / "summary.json").unlink()
    assert status() == [("failed", "for a reason")] * 2
    (run / "failure.json").unlink()  # its curves are left
    assert status() == [("unfinished", "-")] * 2
    assert not RunFolder(run).ended


def test_width_of_a_network_that_does_not_tell_it(tmp_path: Path) -> None:
    """The summary asks the network, which may be one's own; the configuration knows what it was given."""
    run = made(tmp_path, widths=(30,)) / "version_0"
    edit(run, lambda s: s.update(width=None))
    assert set(load_runs(tmp_path)["h"]) == {30}


def test_networks_without_a_width(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path, widths=(None,)))
    assert runs[["h", "sqrt_h_alpha"]].isna().all(axis=None)


def test_runs_of_several_kinds_in_one_table(tmp_path: Path) -> None:
    made(tmp_path / "networks")
    made_kernels(tmp_path / "kernels", widths=(30, 100), seeds=2)
    runs = load_runs([tmp_path / "networks", tmp_path / "kernels"])
    assert runs.groupby("model").size().to_dict() == {"kernel at init": 4, "network": 12}
    assert runs[runs["model"] == "kernel at init"]["kernel_drift/total"].isna().all()
    pd.testing.assert_frame_equal(load_runs(tmp_path).drop(columns="run"), runs.drop(columns="run"), check_like=True)
    assert set(load_runs(tmp_path)["run"].str.split("/").str[0]) == {"networks", "kernels"}


# ---------------------------------------------------------------------- where runs are


def test_odd_names_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a store, of Zoë's" / "3 × [30]"
    made(place, widths=(30,))
    assert len(load_runs(tmp_path)) == 6
    assert set(load_runs(place.parent)["run"]) == {"3 × [30]/version_0"}
    assert len(load_runs(tmp_path).curves.load(["test/error"])) > 6
    by_itself = load_runs(str(place / "version_0"))
    assert set(by_itself["run"]) == {"version_0"}
    assert not (place / "version_0" / FILE_NAME).exists()
    monkeypatch.chdir(place / "version_0")
    assert set(load_runs(".")["run"]) == {"version_0"}
    assert load_runs(".").outputs.load().outputs.shape == (6, 40)


def test_a_run_with_the_name_of_its_store(tmp_path: Path) -> None:
    made(tmp_path / "made", widths=(30,))
    (tmp_path / "made/version_0").rename(tmp_path / "made/made")
    runs = load_runs(tmp_path / "made")
    assert set(runs["run"]) == {"made"}
    assert set(runs["path"]) == {str(tmp_path / "made/made")}


def test_runs_within_runs_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    made(tmp_path, widths=(30,))
    shutil.copytree(tmp_path / "version_0", tmp_path / "version_0/copy")
    shutil.copytree(tmp_path / "version_0", tmp_path / ".trash/version_9")
    (tmp_path / "report").mkdir()
    assert set(load_runs(tmp_path, duplicates=True)["run"]) == {"version_0"}


def test_a_folder_that_a_run_has_not_got_far_in_is_none(tmp_path: Path) -> None:
    made(tmp_path, widths=(30,))
    (tmp_path / "begun").mkdir()
    shutil.copy(tmp_path / "version_0/config.yaml", tmp_path / "begun")
    assert set(load_runs(tmp_path)["run"]) == {"version_0"}


@pytest.mark.parametrize(("where", "said"), [("nowhere", "there is no folder"), ("", "there is no run in")])
def test_nothing_there(tmp_path: Path, where: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_runs(tmp_path / where)


# ---------------------------------------------------------------------- the same member more than once


def twice(folder: Path) -> Path:
    """A member that failed in the first run is trained again in a second, and then in a third."""
    made(folder, widths=(30,), failed=[1])
    for name in ("again", "zz_again"):
        shutil.copytree(folder / "version_0", folder / name)
        config = yaml.safe_load((folder / name / "config.yaml").read_text())
        arguments = config["model"]["init_args"]
        arguments |= {"alpha": arguments["alpha"][:1], "seeds": [1]}
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
        edit(folder / name, lambda s: s.update(members=[{**s["members"][1], "stop": "margins_met", "failed": False}]))
    return folder


def test_the_finished_one_counts(tmp_path: Path) -> None:
    twice(tmp_path)
    everything = load_runs(tmp_path, duplicates=True)
    assert len(everything) == 8
    runs = load_runs(tmp_path)
    assert len(runs) == 6
    assert (runs["status"] == "finished").all()
    assert runs[(runs["alpha"] == runs["alpha"].min()) & (runs["seed"] == 1)]["run"].tolist() == ["zz_again"]
    edit(tmp_path / "zz_again", lambda s: s["members"][0].update(stop="non_finite", failed=True))
    assert (load_runs(tmp_path)["status"] == "finished").all()


def test_a_run_that_is_reached_in_two_ways_is_there_once(tmp_path: Path) -> None:
    made(tmp_path / "sweep")
    assert len(load_runs([tmp_path, tmp_path / "sweep", tmp_path / "sweep/version_1"])) == 12


# ---------------------------------------------------------------------- the index


def test_cached_equals_rebuilt(tmp_path: Path, read: Counter[str]) -> None:
    made(tmp_path / "networks", failed=[2], without=["test/loss"])
    made_kernels(tmp_path / "kernels")
    first = load_runs(tmp_path)
    assert set(read.values()) == {1}
    pd.testing.assert_frame_equal(load_runs(tmp_path), first, check_exact=True)
    assert set(read.values()) == {1}
    (tmp_path / FILE_NAME).unlink()
    pd.testing.assert_frame_equal(load_runs(tmp_path), first, check_exact=True)
    assert set(read.values()) == {2}


def test_what_changes_is_read_again_and_nothing_else(tmp_path: Path, read: Counter[str]) -> None:
    made(tmp_path, widths=(30, 100, 300))
    load_runs(tmp_path)
    edit(tmp_path / "version_1", lambda s: s["members"][0].update({"test/error": 0.77}))
    RunFolder(tmp_path / "version_0").fail("now it has one")
    runs = load_runs(tmp_path)
    assert read == {"version_0": 2, "version_1": 2, "version_2": 1}
    assert runs.query("run == 'version_1' and member == 0")["test/error"].tolist() == [0.77]
    shutil.rmtree(tmp_path / "version_2")
    assert set(load_runs(tmp_path)["run"]) == {"version_0", "version_1"}
    assert read.total() == 5


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "runs": {"version_0": 5}}', '{"schema": 99, "runs": {}}'],
)
def test_a_damaged_index_is_made_anew(tmp_path: Path, content: str) -> None:
    expected = load_runs(made(tmp_path))
    (tmp_path / FILE_NAME).write_text(content)
    pd.testing.assert_frame_equal(load_runs(tmp_path), expected, check_exact=True)
    assert json.loads((tmp_path / FILE_NAME).read_text())["schema"] == 2


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / FILE_NAME).mkdir()  # a file cannot take its place
    assert len(load_runs(tmp_path)) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE_NAME, "version_0", "version_1"]


def test_a_store_may_be_moved(tmp_path: Path) -> None:
    made(tmp_path / "old")
    load_runs(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    runs = load_runs(tmp_path / "new")
    assert runs.outputs.load("test").outputs.shape == (12, 40)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", b'{"schema": 1, "members": ['),
        ("summary.json", b"{}"),
        ("summary.json", b'{"members": 3, "wall_seconds": 1}'),
        ("summary.json", b'{"members": ["a", "b", "c"], "wall_seconds": 1}'),
        ("summary.json", b"\xff\xfe"),
        ("failure.json", b"{"),
        ("config.yaml", b"model: {a: [}"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("config.yaml", b"model: {class_path: x, init_args: {alpha: [one]}}"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_go_on(tmp_path: Path, file: str, content: bytes) -> None:
    made(tmp_path)
    (tmp_path / "version_1" / file).write_bytes(content)
    said: list[str] = []
    assert set(load_runs(tmp_path, on_damaged=said.append)["run"]) == {"version_0"}
    (sentence,) = said
    assert f"version_1/{file}" in sentence
    assert "remove the run, or correct the file" in sentence
    with pytest.raises(DataError, match=rf"version_1/{file}"):
        load_runs(tmp_path / "version_1")


# ---------------------------------------------------------------------- what lies behind the rows


def test_curves_are_those_of_the_files(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path))
    chosen = runs[runs["seed"] == 1].sample(frac=1.0, random_state=0)
    curves = chosen.curves.load()
    assert set(curves["id"]) == set(chosen["id"])
    for row in chosen.itertuples():
        raw = pd.read_parquet(Path(str(row.path)) / "curves.parquet")
        raw = raw[raw["member"] == row.member].drop(columns=["alpha", "seed", "member"]).reset_index(drop=True)
        own = curves[curves["id"] == row.id].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[list(raw.columns)], raw, check_exact=True)
        assert set(own["alpha"]) == {row.alpha}
        assert set(own["h"]) == {row.h}


def test_some_columns_of_curves(tmp_path: Path) -> None:
    made(tmp_path / "a", widths=(30,))
    made(tmp_path / "b", widths=(100,), without=["kernel_drift"])
    runs = load_runs(tmp_path)
    curves = runs.curves.load(["test/error", "kernel_drift/total"])
    assert "train/loss" not in curves
    assert curves.groupby("h")["kernel_drift/total"].apply(lambda c: c.notna().any()).to_dict() == {
        30: True,
        100: False,
    }
    assert {"kernel_drift/total", "test/error", "t"} <= runs.curves.names()
    with pytest.raises(ConfigError, match=r"no run has the column nonsense: there are .*test/error"):
        runs.curves.load(["nonsense"])


def test_runs_without_curves(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "version_0/curves.parquet").unlink()
    runs = load_runs(tmp_path)
    assert set(runs.curves.load()["h"]) == {100}
    assert runs[runs["h"] == 30].curves.load().empty


def test_outputs_are_those_of_the_files(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path)).sample(frac=0.7, random_state=1)
    assert len(set(runs["path"])) == 2
    for which in ("train", "test"):
        found = runs.outputs.load(which)
        for i, row in enumerate(runs.itertuples()):
            raw = load_file(Path(str(row.path)) / "outputs.safetensors")
            np.testing.assert_array_equal(found.outputs[i], raw[f"{which}/outputs"][row.member])
            np.testing.assert_array_equal(found.labels, raw[f"{which}/labels"])
            np.testing.assert_array_equal(found.index, raw[f"{which}/index"])


def test_outputs_that_were_not_kept(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path, arrays=False))
    assert not runs.outputs.available
    with pytest.raises(DataError, match=r"version_0.outputs.safetensors is missing"):
        runs.outputs.load()
    assert runs.kernels.load() == {}
    with pytest.raises(DataError, match="no runs to load outputs from"):
        runs[runs["h"] < 0].outputs.load()


def test_outputs_on_different_samples(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = made(tmp_path) / "version_1/outputs.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"test/index": arrays["test/index"] + 1}, path)
    runs = load_runs(tmp_path)
    assert runs.outputs.available
    with pytest.raises(DataError, match="different test samples"):
        runs.outputs.load("test")
    assert runs.outputs.load("train").outputs.shape == (12, 40)


def test_kernels_by_row(tmp_path: Path) -> None:
    runs = load_runs(made(tmp_path)).sample(frac=1.0, random_state=2)
    found = runs.kernels.load()
    assert set(found) == set(runs.index[runs["seed"] == 0])
    for label, snapshot in found.items():
        row = runs.loc[label]
        raw = load_file(Path(row["path"]) / "kernels.safetensors")
        at = raw["member"].tolist().index(row["member"])
        np.testing.assert_array_equal(snapshot.start, raw["start"][at])
        np.testing.assert_array_equal(snapshot.end, raw["end"][at])
        relative = np.linalg.norm(snapshot.end - snapshot.start) / np.linalg.norm(snapshot.start)
        assert relative == pytest.approx(row["kernel_drift/total"], rel=1e-12)


@pytest.mark.parametrize("file", ["curves.parquet", "outputs.safetensors", "kernels.safetensors"])
def test_damaged_arrays_are_named(tmp_path: Path, file: str) -> None:
    made(tmp_path)
    whole = (tmp_path / "version_1" / file).read_bytes()
    (tmp_path / "version_1" / file).write_bytes(whole[: len(whole) // 2])
    runs = load_runs(tmp_path)
    accessor: Any = getattr(runs, file.partition(".")[0])
    with pytest.raises(DataError, match=rf"version_1.{file} cannot be read"):
        accessor.load()


@pytest.mark.parametrize("name", ["curves", "outputs", "kernels"])
def test_other_tables_have_no_files(name: str) -> None:
    with pytest.raises(AttributeError, match="no column path: use a table of load_runs"):
        getattr(pd.DataFrame({"alpha": [1.0]}), name)


def test_scan_gives_plain_data(tmp_path: Path) -> None:
    """So that an index can be JSON, whatever a configuration holds."""
    run = made(tmp_path, widths=(30,)) / "version_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    odd = {"nothing": None, "list": [1, [2]], "empty": {}, "text": "é", "inf": float("inf"), "flag": True}
    config["model"]["init_args"] |= odd
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert scan(tmp_path) == scan(tmp_path)
    row = load_runs(tmp_path).iloc[0]
    assert row["model.list"] == "[1, [2]]"
    assert row["model.inf"] == float("inf")
    assert row["model.flag"]
