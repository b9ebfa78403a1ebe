"""``fit --resume RUN`` goes on in the run's own folder and ends as the undisturbed run does, to the bit."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import TINY, error_of
from filelock import FileLock
from observed import StopAt
from safetensors.torch import load_file

from lazy_lightning import load_runs
from lazy_lightning.cli import flow_cli, main
from lazy_lightning.cli.run_claim import LOCK

QUIET = [*TINY, "--trainer.enable_progress_bar=false"]
pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

STEPS = "--model.stop.max_steps=14"
KERNEL = ["kernel", *QUIET[1:], STEPS, "--trainer.logger.name=kernel"]
SMALL = [
    *("--data.n_train=60", "--data.n_test=40", "--data.batch_size=20", "--model.search.steps=2"),
    *("--model.network.width=6", "--model.seeds=2", "--model.alpha=[0.1,10.0]"),
]
MINI_BATCHES = ["fit", "--config", "digits_minibatch.yaml", *SMALL, QUIET[-1]]
COMMANDS = {
    "flow": [*QUIET, STEPS],
    "kernel": KERNEL,
    "mini-batches": [*MINI_BATCHES, "--trainer.max_epochs=3"],
}


def folder_of(arguments: list[str], place: str) -> Path:
    """Runs a command in a folder of its own."""
    assert main([*arguments, f"--trainer.logger.save_dir={place}"]) == 0
    (config,) = Path(place).rglob("config.yaml")
    return config.parent


def interrupted(arguments: list[str], place: str, bursts: int = 2) -> Path:
    """The folder of a run that has been stopped after some observations."""
    plain = flow_cli._trainer_defaults
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_cli, "_trainer_defaults", lambda given: plain([*given, StopAt(bursts)]))
        return folder_of(arguments, place)


def trained(run: Path) -> dict:
    """What the saved configuration says of model, data and trainer."""
    saved = yaml.safe_load((run / "config.yaml").read_text())
    return {name: saved[name] for name in ("model", "data", "trainer")}


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.mark.parametrize("kind", COMMANDS)
def test_resumed_run_is_the_undisturbed_one_in_its_own_folder(kind, capsys):
    whole = folder_of(COMMANDS[kind], "whole")
    run = interrupted(COMMANDS[kind], "stopped")
    before = trained(run)
    halfway = len(pd.read_parquet(run / "curves.parquet"))

    assert main(["fit", "--resume", str(run)]) == 0

    tables = [pd.read_parquet(folder / "curves.parquet").drop(columns="wall") for folder in (whole, run)]
    assert halfway < len(tables[0])
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    expected, found = (load_file(folder / "outputs.safetensors") for folder in (whole, run))
    assert all(found[name].equal(value) for name, value in expected.items())
    assert trained(run) == before
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    assert not (run / LOCK).exists()
    assert len(load_runs("stopped").run.unique()) == 1
    capsys.readouterr()


def test_further_options_are_recorded(capsys):
    run = interrupted([*QUIET, STEPS], "stopped")
    assert main(["fit", "--resume", str(run), "--model.stop.max_steps=17"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["stop"]["max_steps"] == 17
    assert pd.read_parquet(run / "curves.parquet").tried.max() == 17
    assert load_runs("stopped")["model.stop.max_steps"].unique().tolist() == [17]

    assert main(["fit", f"--resume={run}"]) == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_begins_again(capsys):
    """As one that was killed before its first checkpoint."""
    whole = folder_of([*QUIET, STEPS], "whole")
    run = interrupted([*QUIET, STEPS], "stopped", bursts=1)
    for name in ("checkpoint.ckpt", "summary.json", "outputs.safetensors"):
        (run / name).unlink()
    assert main(["fit", "--resume", str(run)]) == 0
    tables = [pd.read_parquet(folder / "curves.parquet").drop(columns="wall") for folder in (whole, run)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_rows_of_a_csv_logger_stay():
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.name=csv"]
    run = interrupted([*QUIET, STEPS, *logger], "stopped")
    rows = rows_of(run / "metrics.csv")
    assert main(["fit", "--resume", str(run)]) == 0
    after = rows_of(run / "metrics.csv")
    assert len(after) > len(rows)
    assert [row["step"] for row in after[: len(rows)]] == [row["step"] for row in rows]
    assert trained(run)["trainer"]["logger"]["class_path"].endswith("CSVLogger")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    place = tmp_path_factory.mktemp("refused")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return place / interrupted([*QUIET, STEPS], "stopped")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.alpha=3.0"], ["model.alpha", "3.0", "trains what it trained"]),
        (["--model.network.width=9"], ["model.network.width is 9"]),
        (["--data.n_train=9"], ["data.n_train is 9"]),
        (["--trainer.precision=32-true"], ["trainer.precision"]),
        (["--ckpt_path=x.ckpt"], ["leave --ckpt_path out"]),
        (["--resume=other"], ["2 times"]),
    ],
)
def test_what_would_be_another_run_is_refused(stopped, options, words, capsys):
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if path.is_file()}
    sentence = error_of(["fit", "--resume", str(stopped), *options], capsys)
    for word in words:
        assert word in sentence
    assert {path.name: path.read_bytes() for path in stopped.iterdir() if path.is_file()} == before


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "there is no folder nowhere" in error_of(["fit", "--resume", "nowhere"], capsys)
    assert "needs the folder of a run" in error_of(["fit", "--resume"], capsys)
    assert "holds no config.yaml" in error_of(["fit", "--resume", str(tmp_path)], capsys)


def test_an_ended_run_without_checkpoint_is_refused(stopped, tmp_path, capsys):
    shutil.copytree(stopped, tmp_path / "copy")
    (tmp_path / "copy/checkpoint.ckpt").unlink()
    assert "has no checkpoint.ckpt" in error_of(["fit", "--resume", "copy"], capsys)


def hold(path: Path, held, done) -> None:
    with FileLock(path):
        held.set()
        done.wait(60)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_never_go_on_with_one_run(stopped, tmp_path, capsys):
    shutil.copytree(stopped, tmp_path / "copy")
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "copy" / LOCK, held, done))
    other.start()
    assert held.wait(60)
    try:
        assert "is being trained by another process" in error_of(["fit", "--resume", "copy"], capsys)
    finally:
        done.set()
        other.join(60)
    assert main(["fit", "--resume", "copy"]) == 0
