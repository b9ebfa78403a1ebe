"""Mini-batch training on several devices: real processes train the members of one process, and evaluate them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import CONF
from rank_processes import run_ranks
from safetensors.torch import load_file

from lazy_lightning.cli import main
from lazy_lightning.modules import MiniBatchModule

RUN = [
    "--config", "digits_minibatch.yaml", "--config", str(CONF / "no_figures.yaml"), "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--trainer.logger.version", "run", "--data.n_train", "60",
    "--data.n_test", "40", "--data.batch_size", "20", "--trainer.max_epochs", "2", "--model.search.steps", "3",
    "--model.network.width", "10", "--model.alpha", "[0.1,10.0]", "--model.seeds", "2", "--data.n_val", "30",
    "--model.batch_seed", "weights",
]  # fmt: skip
DDP = ["--trainer.strategy", "ddp", "--trainer.devices"]


def arguments(command: str, place: Path, *more: str) -> list[str]:
    return [command, *RUN, "--trainer.logger.save_dir", str(place), *more]


def folder(place: Path) -> Path:
    return place / "digits_minibatch" / "run"


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(folder(place) / "curves.parquet").drop(columns="wall")


def on_ranks(count: int, command: str, place: Path, *more: str) -> str:
    """What rank 0 prints; the others print nothing."""
    log = place / f"log_{command}"
    codes = run_ranks(count, arguments(command, place, *more, *DDP, str(count)), log)
    assert codes == [0] * count, (log / "0").read_text()
    assert [(log / str(rank)).read_text() for rank in range(1, count)] == [""] * (count - 1)
    return (log / "0").read_text()


def same_curves(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(curves(one), curves(other), rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("one")
    assert main(arguments("fit", place)) == 0
    return place


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("three")
    assert "learning rates of the linearized" in on_ranks(3, "fit", place)
    return place


def test_four_members_with_companions_and_found_rates_on_three_ranks_equal_one_process(one, three):
    same_curves(one, three)
    outputs = (load_file(folder(place) / "outputs.safetensors") for place in (three, one))
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-11)
    summaries = [json.loads((folder(place) / "summary.json").read_text()) for place in (one, three)]
    assert [[m["seed"] for m in s["members"]] for s in summaries] == [[0, 1, 0, 1]] * 2


def test_checkpoint_of_three_ranks_is_that_of_one_process(one, three):
    files = (torch.load(folder(place) / "checkpoint.ckpt", weights_only=True) for place in (three, one))
    parts = [
        {name: file[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")}
        | {name: file["lazy_lightning"][name] for name in ("t", "rates", "loss_start", "steps")}
        for file in files
    ]
    of_metrics = [name for name in parts[0]["state_dict"] if name.startswith("metrics.")]
    for part in parts:  # buffers of the metrics are of the members of a rank
        for name in of_metrics:
            part["state_dict"].pop(name)
    ours, expected = parts
    for file in parts:
        for schedule in file["lr_schedulers"]:
            schedule.pop("lr_lambdas", None)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_checkpoint_of_three_ranks_goes_on_with_two_and_with_one(three, tmp_path):
    more = ["--trainer.max_epochs", "3", "--ckpt_path", str(folder(three) / "checkpoint.ckpt")]
    assert main(arguments("fit", tmp_path / "one", *more)) == 0
    assert "learning rates of" not in on_ranks(2, "fit", tmp_path / "two", *more)
    assert curves(tmp_path / "two").tried.max() == 9
    same_curves(tmp_path / "one", tmp_path / "two")


def table(printed: str) -> dict[str, float]:
    found = re.findall(r"((?:test|val)/\S+/alpha=\S+)\s*│?\s*([0-9.e-]+)", printed)
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize("command", ["test", "validate"])
def test_metrics_of_the_whole_ensemble_on_two_ranks_are_those_of_one_process(command, one, tmp_path, capsys):
    checkpoint = ["--ckpt_path", str(folder(one) / "checkpoint.ckpt")]
    capsys.readouterr()
    assert main(arguments(command, tmp_path / "one", *checkpoint)) == 0
    expected = table(capsys.readouterr().out)
    assert any("ensemble_error" in name for name in expected)
    found = table(on_ranks(2, command, tmp_path / "two", *checkpoint))
    assert found == pytest.approx(expected, rel=1e-9)


def test_predictions_of_two_ranks_are_one_file_in_the_order_of_one_process(one, tmp_path):
    checkpoint = ["--ckpt_path", str(folder(one) / "checkpoint.ckpt")]
    assert main(arguments("predict", tmp_path / "one", *checkpoint)) == 0
    assert on_ranks(2, "predict", tmp_path / "two", *checkpoint).count("predictions in") == 1
    files = [next((tmp_path / name).rglob("predictions.safetensors")) for name in ("two", "one")]
    ours, expected = (load_file(file) for file in files)
    assert expected["outputs"].shape[:2] == (40, 4)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_a_signal_that_reaches_one_rank_stops_all_after_the_same_step(one, tmp_path):
    def interrupt_in_the_fourth_step(rank: int) -> None:
        step = MiniBatchModule.optimizer_step

        def optimizer_step(self: MiniBatchModule, *args, **kwargs) -> None:
            if self.steps == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            step(self, *args, **kwargs)

        if rank == 1:
            MiniBatchModule.optimizer_step = optimizer_step  # type: ignore[method-assign]

    run = arguments("fit", tmp_path, *DDP, "2")
    codes = run_ranks(2, run, tmp_path / "log", interrupt_in_the_fourth_step)
    assert codes == [0, 130], (tmp_path / "log" / "0").read_text()
    checkpoint = folder(tmp_path) / "checkpoint.ckpt"
    assert torch.load(checkpoint, weights_only=True)["lazy_lightning"]["steps"] == 4
    assert main(arguments("fit", tmp_path / "rest", "--ckpt_path", str(checkpoint))) == 0
    last, expected = (curves(place).tail(4).reset_index(drop=True) for place in (tmp_path / "rest", one))
    columns = [name for name in expected if name != "observation"]
    pd.testing.assert_frame_equal(last[columns], expected[columns], rtol=1e-9, atol=1e-11)
