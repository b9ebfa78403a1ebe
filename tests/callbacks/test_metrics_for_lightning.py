"""The columns of observations reach Lightning's own callbacks and loggers."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUIET, error_of
from fits import digits, fit
from logged import MEMBERS, SHORT, Recorded, trained
from observed import StopAt, watch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from lazy_lightning.callbacks import ClosingSummary, KernelDrift, RunCheckpoint
from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.runs.run_folder import RunFolder


def means(table, column):
    """By observation, over all members and over those of alpha = 0.1."""
    return (
        table.groupby("observation")[column].mean().to_numpy(),
        table[table.alpha == 0.1].groupby("observation")[column].mean().to_numpy(),
    )


def test_columns_are_callback_metrics(tmp_path):
    run = watch(tmp_path, KernelDrift(samples=6, t_factor=torch.inf), **SHORT)
    metrics = run.trainer.callback_metrics
    for column in ("train/loss", "test/error", "t", "dt"):
        over_all, of_alpha = means(run.table, column)
        assert float(metrics[column]) == pytest.approx(over_all[-1], rel=1e-12)
        assert float(metrics[f"{column}/alpha=0.1"]) == pytest.approx(of_alpha[-1], rel=1e-12)
    assert metrics["train/loss"].dtype == torch.float64
    assert "reason" not in metrics


def test_csv_has_every_observation(tmp_path):
    run = fit(tmp_path, **SHORT)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    over_all, of_alpha = means(run.table, "train/loss")
    assert [int(row["step"]) for row in rows] == list(range(len(over_all)))
    np.testing.assert_allclose([float(row["train/loss"]) for row in rows], over_all, rtol=1e-6)
    np.testing.assert_allclose([float(row["train/loss/alpha=0.1"]) for row in rows], of_alpha, rtol=1e-6)


def test_early_stopping_acts_at_observations(tmp_path):
    stopping = EarlyStopping(monitor="train/loss", stopping_threshold=0.9, patience=10**6)
    run = watch(tmp_path, stopping, alpha=0.1, stop=StoppingCriteria(max_steps=10**6))
    assert run.last("train/loss")[0] < 0.9 <= run.table["train/loss"].iloc[-2]
    impatient = EarlyStopping(monitor="test/loss/alpha=10", patience=1, mode="max")
    run = watch(tmp_path / "b", impatient, **MEMBERS, stop=StoppingCriteria(max_steps=10**6))
    assert run.table.observation.max() <= 3


def test_a_member_that_early_stopping_ended_says_so_and_has_finished(tmp_path):
    stopping = EarlyStopping(monitor="train/loss", stopping_threshold=0.9)
    saved = RunCheckpoint()
    watch(tmp_path, stopping, saved, ClosingSummary(), alpha=0.1, stop=StoppingCriteria(max_steps=10**6))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [member["stop"] for member in summary["members"]] == ["early_stopping"]
    assert summary["groups"][0]["stops"] == ["ended by EarlyStopping"]
    assert RunFolder(tmp_path).ended

    goes_on = EarlyStopping(monitor="train/loss", stopping_threshold=1e-9)
    checkpoint = tmp_path / "checkpoint.ckpt"
    stop = StoppingCriteria(max_steps=10**6)
    watch(tmp_path / "b", goes_on, StopAt(1), ClosingSummary(), ckpt_path=checkpoint, alpha=0.1, stop=stop)
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert [member["stop"] for member in summary["members"]] == ["interrupted"]  # by another callback, this time


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_model_checkpoint_keeps_the_best(tmp_path):
    keeper = ModelCheckpoint(tmp_path / "best", "{step}", monitor="train/loss", save_top_k=2)
    run = watch(tmp_path, keeper, **SHORT)
    losses = means(run.table, "train/loss")[0][1:]
    assert keeper.best_model_score == pytest.approx(losses.min(), rel=1e-12)
    assert len(list((tmp_path / "best").glob("*.ckpt"))) == 2
    again = ModelCheckpoint(tmp_path / "best", "{step}", monitor="train/loss", save_top_k=2)
    resumed = watch(
        tmp_path / "b", again, ckpt_path=keeper.best_model_path, **MEMBERS, stop=StoppingCriteria(max_steps=25)
    )
    assert resumed.table.tried.max() == 25


@pytest.mark.parametrize("callback", [EarlyStopping, ModelCheckpoint])
def test_monitor_that_is_not_measured_is_told_before_training(callback, tmp_path):
    with pytest.raises(ConfigError, match="monitors 'train/los', which is not measured: did you mean train/loss"):
        watch(tmp_path, callback(monitor="train/los"), **SHORT)


@pytest.mark.parametrize(
    "callback",
    [ModelCheckpoint(monitor="t", every_n_epochs=2), EarlyStopping(monitor="t", check_on_train_epoch_end=False)],
    ids=lambda callback: type(callback).__name__,
)
def test_what_would_never_act_is_refused(callback, tmp_path):
    with pytest.raises(ConfigError, match="a flow"):
        watch(tmp_path, callback, **SHORT)


def test_learning_rate_monitor_shows_the_step_size(tmp_path):
    recorded = Recorded()
    trained(recorded, LearningRateMonitor("step"), log_every_n_steps=1)
    rates = [row["lr-MomentumFlow"] for _, row in recorded.rows if "lr-MomentumFlow" in row]
    steps = [row["dt"] for _, row in recorded.rows if "dt" in row]
    assert rates == pytest.approx(steps[: len(rates)])


def test_mini_batches(tmp_path):
    model = MiniBatchModule(functools.partial(FC, width=8), loss="softhinge(20)", alpha=[0.5, 2.0])
    recorded, keeper = Recorded(), ModelCheckpoint(tmp_path, monitor="test/loss")
    stopping = EarlyStopping(monitor="train/loss/alpha=2", stopping_threshold=1e9)
    trainer = trained(
        recorded,
        LearningRateMonitor(),
        keeper,
        stopping,
        model=model,
        data=digits(batch_size=20),
        log_every_n_steps=1,
        epochs=5,
    )
    assert trainer.current_epoch == 1  # the threshold was met at its end
    assert keeper.best_model_path
    assert any("train/loss/alpha=2" in row for _, row in recorded.rows)


def test_early_stopping_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=train/loss"]
    folder = f"--trainer.default_root_dir={tmp_path}"
    assert main([*QUIET, *stopping, "--trainer.callbacks.stopping_threshold=1e9", folder]) == 0
    assert (Path(tmp_path) / "summary.json").is_file()
    assert "test/error" in error_of([*QUIET, *stopping[:1], "--trainer.callbacks.monitor=nothing"], capsys)
