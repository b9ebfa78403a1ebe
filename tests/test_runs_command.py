"""``runs`` as a user meets it, and what ``--help`` tells of it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import error_of
from made_runs import made_kernels, made_sweep

from lazy_lightning.cli import main
from lazy_lightning.report.own_folder import claim, require_own_folder
from lazy_lightning.runs import load_runs

SCALES = (0.1, 1.0, 10.0)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of networks, of which one has failed members, and one of kernels."""
    made_sweep(tmp_path / "runs", widths=(30, 100), scales=SCALES, seeds=2, failed=[0, 1])
    made_kernels(tmp_path / "runs", widths=(30,), seeds=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr().out


def line(text: str, start: str) -> str:
    """The row of a table that has a word."""
    return next(row for row in text.splitlines() if start in row)


# ---------------------------------------------------------------------- list, show


def test_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "runs", "list")  # the folder runs is where fits are put
    assert text == shown(capsys, "runs", "list", str(runs))
    assert "3 runs, 14 members" in text
    network = line(text, "version_1")
    for word in ("network", "100", "0.01 .. 1 (3)", "4 finished, 2 failed", "7.50 .. 10.50 %"):
        assert word in network
    assert "kernel at init" in line(text, "kernel_30")
    assert max(len(row) for row in text.splitlines()) <= 150


def test_list_needs_no_torch(runs: Path) -> None:
    """It is asked often, and torch takes seconds."""
    program = (
        "import sys; from lazy_lightning.cli import main; code = main(['runs', 'list']); "
        "sys.exit(code or sorted({'torch', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=runs.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "version_1" in done.stdout


def test_list_of_a_run_under_way(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "version_0/summary.json").unlink()
    assert "6 unfinished" in line(shown(capsys, "runs", "list"), "version_0")
    for name in ("version_1", "kernel_30"):
        (runs / name / "summary.json").unlink()
        (runs / name / "failure.json").write_text('{"schema": 1, "reason": "no memory"}')
    text = shown(capsys, "runs", "list")
    assert "6 failed" in line(text, "version_1")


def test_show_what_has_not_ended(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "version_0/summary.json").unlink()
    text = shown(capsys, "runs", "show", "runs/version_0")
    assert "softhinge(20)" in line(text, "model.loss")
    assert "30" in line(text, "model.network.width")
    assert "there is no summary" in text
    (runs / "version_0/failure.json").write_text('{"schema": 1, "reason": "it was too large"}')
    assert "failed: it was too large" in shown(capsys, "runs", "show", "runs/version_0")


# ---------------------------------------------------------------------- rm


def test_rm(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_runs(runs)
    text = shown(capsys, "runs", "rm", "runs/version_0", "runs/kernel_30", "--yes")
    assert text.splitlines() == ["removed runs/version_0", "removed runs/kernel_30"]
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {"version_1"}
    assert set(load_runs(runs)["run"]) == {"version_1"}


def test_rm_removes_nothing_unasked(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --yes" in error_of(["runs", "rm", "runs/version_0"], capsys)
    assert (runs / "version_0/summary.json").is_file()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("no\n", 1)])
def test_rm_asks(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    shown(capsys, "runs", "rm", "runs/version_0", code=code)
    assert (runs / "version_0").exists() == bool(code)


@pytest.mark.parametrize("target", ["runs", ".", "nowhere", "runs/version_0/config.yaml"])
def test_rm_removes_runs_alone(runs: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And none of several if one is none."""
    said = error_of(["runs", "rm", "runs/version_1", target, "--yes"], capsys)
    assert f"{Path(target)} is not the folder of a run" in said
    assert len(load_runs(runs)) == 14


def test_rm_of_the_same_run_twice(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "runs", "rm", "runs/version_0", "runs/../runs/version_0", "--yes")
    assert text.splitlines() == ["removed runs/version_0"]


def test_rm_removes_nothing_if_one_cannot_be_removed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each ends in one sentence: a link, the working folder, a name that no disk takes, a refusal of the disk."""
    (runs / "link").symlink_to(runs / "version_0")
    for target, said in [
        ("runs/link", "is a link"),
        ("n" * 5000, "is not the folder of a run"),
        ("/", "is not the folder of a run"),
    ]:
        assert said in error_of(["runs", "rm", "runs/version_1", target, "--yes"], capsys)
    monkeypatch.chdir(runs / "version_0")
    assert "is the working folder" in error_of(["runs", "rm", str(runs / "version_1"), ".", "--yes"], capsys)
    monkeypatch.chdir(runs.parent)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "version_1":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    said = error_of(["runs", "rm", "runs/version_0", "runs/version_1", "--yes"], capsys)
    assert "version_1 cannot be removed (Permission denied): nothing was removed" in said
    assert len(load_runs(runs)) == 14


def test_names_are_shown_as_they_are(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "version_0").rename(runs / "[")
    (runs / "version_1").rename(runs / "=x\x1b[31m")
    (runs / "[").rename(runs / "[bold]a[")
    text = shown(capsys, "runs", "list")
    assert "[bold]a[" in text
    assert "\x1b" not in text
    assert "[bold]a[" in shown(capsys, "runs", "show", "runs/[bold]a[", code=1)  # its summary has no groups
    shown(capsys, "runs", "export", "runs", "--out", "t.csv")
    assert {name for name in pd.read_csv("t.csv")["run"] if name.startswith("'=")} == {r"'=x\x1b[31m"}


def test_list_is_in_natural_order_with_data_and_duplicates(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "version_0").rename(runs / "version_10")
    shutil.copytree(runs / "version_1", runs / "version_2")
    text = shown(capsys, "runs", "list")
    assert "4 runs, 20 members, 6 of them duplicates of others" in text
    assert [w for w in text.split() if w.startswith("version")] == ["version_1", "version_2", "version_10"]
    assert "Digits" in line(text, "version_1")
    said = shown(capsys, "runs", "export", "runs", "--out", "t.csv")
    assert "14 rows" in said
    assert "6 members that are duplicates of others were left out" in said
    assert "20 rows" in shown(capsys, "runs", "export", "runs", "--out", "t.csv", "--duplicates")


def test_show_has_no_measurements_among_the_configuration(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "runs", "show", "runs/version_0", code=1)  # its summary has no groups
    keys = [row.split("│")[1].strip() for row in text.splitlines() if row.startswith("│")]
    assert {"model.loss", "data.labels"} <= set(keys)
    assert all(key.partition(".")[0] in ("model", "data", "trainer") for key in keys)


# ---------------------------------------------------------------------- report


def test_report_overwrites_nothing_but_a_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = runs.parent / "site"
    place.mkdir()
    (place / "index.html").write_text("<title>mine</title>")
    assert "site holds files that are not a report's" in error_of(["report", "runs", "--out", "site"], capsys)
    assert (place / "index.html").read_text() == "<title>mine</title>"
    assert [p.name for p in place.iterdir()] == ["index.html"]
    require_own_folder(runs.parent / "new")
    (runs.parent / "empty").mkdir()
    require_own_folder(runs.parent / "empty")
    (place / "index.html").write_text("<title>Lazy training and feature learning: FC</title>")  # of version 0.1.0
    require_own_folder(place)
    claim(runs.parent / "new")
    (runs.parent / "new/index.html").write_text("")
    require_own_folder(runs.parent / "new")


# ---------------------------------------------------------------------- export


@pytest.mark.parametrize("name", ["all.csv", "new/folder/all.parquet"])
def test_export(runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    members = load_runs(runs)
    text = shown(capsys, "runs", "export", "runs", "--out", name)
    assert f"14 rows and {len(members.columns)} columns in {name}" in text
    read = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    assert list(read.columns) == list(members.columns)
    pd.testing.assert_series_equal(read["test/error"], members["test/error"], rtol=1e-14)
    assert read["id"].tolist() == members["id"].tolist()


def test_export_of_curves(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = [str(runs / "version_0"), str(runs / "version_1")]
    shown(capsys, "runs", "export", *networks, "--out", "curves.parquet", "--curves")
    pd.testing.assert_frame_equal(pd.read_parquet("curves.parquet"), load_runs(networks).curves.load())


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["list", "nowhere"], 1, "there is no folder nowhere"),
        (["list", "runs/version_0/figures"], 1, "there is no folder runs/version_0/figures"),
        (["show", "runs"], 1, "runs is not the folder of a run; there are runs in it, such as runs/kernel_30"),
        (["export", "runs", "--out", "table.xlsx"], 2, "--out is table.xlsx, expected a file that ends in .csv"),
        (["export", "runs"], 2, "--out"),
        (["export", "runs", "--out", "runs/version_0/config.yaml/t.csv"], 1, "cannot write"),
        (["lsit"], 2, "lsit"),
        ([], 2, "command"),
        (["rm"], 2, "run"),
    ],
)
def test_one_sentence(
    runs: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", *arguments]) == code
    assert said in error_of(["runs", *arguments], capsys)


def test_a_damaged_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "version_0/summary.json").write_text('{"schema": 1, "members": [')
    capsys.readouterr()
    for arguments in (["list"], ["export", "runs", "--out", "t.csv"], ["export", "runs", "--out", "t.csv", "--curves"]):
        assert main(["runs", *arguments]) == 0
        out, err = capsys.readouterr()
        assert err.startswith("warning: runs/version_0/summary.json cannot be read")
        assert len(err.splitlines()) == 1
        assert "version_0" not in out
    assert "summary.json cannot be read" in error_of(["runs", "show", "runs/version_0"], capsys)
    assert main(["runs", "rm", "runs/version_0", "--yes"]) == 0  # which is what it says one can do
    assert main(["runs", "list"]) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "--help"], ["report", "--help"], ["sweep", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *arguments)
    expected = {
        "--help": ["fit", "kernel", "sweep", "report", "runs", "lists, shows, removes and exports runs"],
        "runs": ["list", "show", "rm", "export"],
        "report": ["--out", "folders of runs"],
        "sweep": ["--sweep", "--dry_run", "--retry_failed", "--workers", "--max_members", "--out"],
    }[arguments[0]]
    assert all(word in text for word in expected)


def test_index_of_a_list_is_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, "runs", "list")
    index = json.loads((runs / "index.json").read_text())
    assert set(index["runs"]) == {"version_0", "version_1", "kernel_30"}
