"""Runs from the command line on the device, checkpoints that go to another device and back, and resumed runs."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from observed import StopAt
from safetensors.torch import load_file

from emulated.accelerator import STRATEGY
from emulated.fitting import DEVICE, HOST, assert_same_numbers, fitted, flow, kernel, scaled
from emulated.memory import NAME
from lazy_lightning.callbacks import KernelDrift, LearningCurves, PathDistance, RunCheckpoint
from lazy_lightning.cli import main

FIRST_BURSTS = 2
PLACES = {
    HOST: ["--trainer.accelerator=cpu", "--trainer.strategy=auto"],
    DEVICE: [f"--trainer.accelerator={NAME}", f"--trainer.strategy={STRATEGY}"],
}
CONFIGURED = ["--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml", "--model.network.width=5"]
QUIET = ["--trainer.enable_progress_bar=false", "--model.stop.max_steps=6"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """What a run writes does not stay, and figures are not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearningCurves, "on_train_end", lambda *args: None)
    yield
    torch.set_flush_denormal(False)


def observers(build):
    return [KernelDrift(samples=5), PathDistance()] if build is flow else []


@pytest.mark.parametrize("build", [flow, kernel, scaled])
@pytest.mark.parametrize("places", [(HOST, DEVICE), (DEVICE, HOST), (DEVICE, DEVICE)], ids="-".join)
def test_a_run_goes_on_where_it_is_taken(build, places, tmp_path):
    """Interrupted on one device and resumed on another, it gives the numbers of an undisturbed run on the host."""
    first, second = places
    expected = fitted(tmp_path / "whole", HOST, build(), observers(build))[1]
    fitted(tmp_path / "first", first, build(), [*observers(build), StopAt(FIRST_BURSTS), RunCheckpoint()])
    checkpoint = tmp_path / "first" / first / "checkpoint.ckpt"
    found = fitted(tmp_path / "second", second, build(), observers(build), ckpt_path=checkpoint)[1]
    last = [table[table.observation == table.observation.max()].reset_index(drop=True) for table in (expected, found)]
    assert_same_numbers(*last, rtol=1e-7)


def command(place: str, subcommand: str, *more: str) -> None:
    assert main([subcommand, *CONFIGURED, *PLACES[place], *QUIET, f"--trainer.logger.save_dir={place}", *more]) == 0


def table_of(printed: str) -> dict[str, float]:
    """The numbers of the printed table by name."""
    cells = [re.findall(r"[^\s│┃|]+", line) for line in printed.splitlines() if "test/" in line]
    return {name: float(value) for name, value in cells}


def test_commands_on_the_device(capsys):
    """fit, kernel, and test and predict of what fit has left."""
    for place in (HOST, DEVICE):
        command(place, "fit", "--config", "callbacks/ntk.yaml")
        command(place, "kernel", "--trainer.logger.name=kernel")
    for run in ("digits_fc", "kernel"):
        tables = [pd.read_parquet(Path(place) / run / "version_0" / "curves.parquet") for place in (HOST, DEVICE)]
        assert_same_numbers(*tables, rtol=1e-7)
    assert yaml.safe_load((Path(DEVICE) / "kernel/version_0/config.yaml").read_text())["trainer"]["accelerator"] == NAME
    folder = Path(DEVICE) / "digits_fc" / "version_0"
    left = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoint.ckpt")]
    shown, outputs = [], []
    for place in (HOST, DEVICE):
        capsys.readouterr()
        assert main(["test", *left, *PLACES[place], "--trainer.logger=false"]) == 0
        shown.append(table_of(capsys.readouterr().out))
        assert main(["predict", *left, *PLACES[place], f"--trainer.logger.save_dir=predicted/{place}"]) == 0
        (file,) = Path(f"predicted/{place}").rglob("predictions.safetensors")
        outputs.append(load_file(file)["outputs"])
    assert shown[0]
    assert shown[0] == pytest.approx(shown[1], rel=1e-8, abs=1e-9)
    torch.testing.assert_close(*outputs, rtol=1e-8, atol=1e-9)


def test_a_sweep_in_this_process(capsys):
    Path("sweep.yaml").write_text("name: small\ngrid: {alpha: [0.1, 10.0], seeds: 1}\n")
    for place in (HOST, DEVICE):
        options = ["--sweep=sweep.yaml", f"--out={place}", "--workers=0"]
        assert main(["sweep", *CONFIGURED, *PLACES[place], *QUIET, *options]) == 0
    tables = []
    for place in (HOST, DEVICE):
        files = sorted(Path(place).rglob("curves.parquet"))
        assert files
        tables.append(pd.concat([pd.read_parquet(file) for file in files], ignore_index=True))
    assert_same_numbers(*tables, rtol=1e-7)
