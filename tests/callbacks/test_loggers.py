"""Every logger holds the same columns: the same points (column, alpha, step), with the same values."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from fits import digits
from logged import (
    MEMBERS,
    Points,
    Recorded,
    of_alphas,
    points_of_csv,
    points_of_rows,
    points_of_tensorboard,
    rows_of_wandb,
    scalars_of,
    trained,
)
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lazy_lightning.callbacks import Curves, KernelDrift, TensorBoardScalars
from lazy_lightning.callbacks.scalars import tag_of
from lazy_lightning.modules import MiniBatchModule
from lazy_lightning.modules.logged_columns import names_for_mlflow
from lazy_lightning.modules.observation import NetworkObserver
from lazy_lightning.nn import FC

ALPHAS = MEMBERS["alpha"]
SPARSE = 1000.0
"""Factor of t between measurements of the kernel, so that its columns have fewer points than others."""


class Share(NetworkObserver):
    """Two columns whose names differ in a character that MLflow does not accept."""

    def observe(self, module, observation):
        return {"own/share": module.w.abs().mean(dim=-1), "own/share%": 100 * module.w.abs().mean(dim=-1)}


def sparse() -> KernelDrift:
    return KernelDrift(samples=6, t_factor=SPARSE)


class Refusing(Recorded):
    """A logger whose server is away."""

    def log_metrics(self, metrics, step=None):
        raise ConnectionError("away")


class Database(Recorded, MLFlowLogger):
    """Lightning's MLflow logger without MLflow."""

    _initialized = False

    def __init__(self):
        Logger.__init__(self)
        self.rows = []


def means_of_members(trainer: Trainer) -> Points:
    """The means of the finite values in the table of ``Curves``, which has a row for each observation and member."""
    curves = next(callback for callback in trainer.callbacks if isinstance(callback, Curves))
    table = curves.table(trainer.model)
    measured = table.drop(columns=["observation", "member", "alpha", "seed", "wall", "reason"])
    measured = measured.where(np.isfinite(measured))
    over_all = measured.groupby(table.observation).mean()
    over_seeds = measured.groupby([table.observation, table.alpha]).mean()
    means = {(name, None, step): value for (step, name), value in over_all.stack().dropna().items()}
    return means | {(name, alpha, step): value for (step, alpha, name), value in over_seeds.stack().dropna().items()}


def assert_same_points(found: Points, expected: Points, rel: float = 0.0) -> None:
    assert sorted(found.keys() ^ expected.keys(), key=str) == []
    assert found == pytest.approx(expected, rel=rel, abs=0.0)


def test_csv_and_tensorboard_hold_the_same_points(tmp_path):
    """Also of a column that is not measured at each observation: an empty cell, and no point."""
    board, table = TensorBoardLogger(tmp_path, "runs", default_hp_metric=False), CSVLogger(tmp_path / "csv")
    trainer = trained([board, table], TensorBoardScalars(), sparse())
    in_csv = points_of_csv(Path(table.log_dir) / "metrics.csv")
    assert_same_points(in_csv, means_of_members(trainer), rel=1e-12)
    by_tag = {(tag_of(column), alpha, step): value for (column, alpha, step), value in of_alphas(in_csv).items()}
    assert_same_points(points_of_tensorboard(Path(board.log_dir)), by_tag, rel=1e-6)  # written in float32
    steps = {column: {step for name, _, step in in_csv if name == column} for column in ("t", "kernel_drift/total")}
    assert steps["t"] == set(range(max(steps["t"]) + 1))
    assert 0 < len(steps["kernel_drift/total"]) < len(steps["t"])


def test_any_logger_is_given_the_points_of_the_csv(tmp_path, caplog):
    """Also where one of them fails at each call, which is reported once."""
    recorded, table, board = Recorded(), CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tb")
    trainer = trained([recorded, Refusing(), board, table], sparse())
    given = points_of_rows(recorded.rows)
    assert_same_points(points_of_csv(Path(table.log_dir) / "metrics.csv"), given)
    assert_same_points(given, means_of_members(trainer), rel=1e-12)
    assert_same_points(
        points_of_rows(scalars_of(Path(board.log_dir))), given, rel=1e-6
    )  # without a sink for TensorBoard
    assert sum("away" in record.message for record in caplog.records) == 1


def test_mini_batch_training_logs_the_same_points(tmp_path):
    """Also the columns of a companion."""
    model = MiniBatchModule(
        functools.partial(FC, width=8), loss="softhinge(20)", alpha=ALPHAS, seeds=2, companions=["linearized"]
    )
    board, table = TensorBoardLogger(tmp_path, "runs", default_hp_metric=False), CSVLogger(tmp_path / "csv")
    recorded = Recorded()
    loggers = [board, table, recorded]
    often = {"epochs": 3, "log_every_n_steps": 1}
    trainer = trained(loggers, TensorBoardScalars(), model=model, data=digits(batch_size=20), **often)
    in_csv = points_of_csv(Path(table.log_dir) / "metrics.csv")
    assert_same_points(in_csv, means_of_members(trainer), rel=1e-12)
    assert_same_points(points_of_rows(recorded.rows), in_csv)
    by_tag = {(tag_of(column), alpha, step): value for (column, alpha, step), value in of_alphas(in_csv).items()}
    assert_same_points(points_of_tensorboard(Path(board.log_dir)), by_tag, rel=1e-6)
    assert ("linearized/test/error", 10.0, 3) in in_csv


def test_mlflow_is_given_names_that_it_accepts():
    """It takes no ``=``, and its file store no name that is another one's folder: ``t`` and ``t/alpha=0.1``."""
    recorded, database = Recorded(), Database()
    trained([recorded, database], sparse(), Share())
    assert database.rows == [(step, names_for_mlflow(metrics)) for step, metrics in recorded.rows]
    names = {name for _, metrics in database.rows for name in metrics}
    assert {"t", "train/loss", "train/loss.alpha_0.1", "train/loss.alpha_10"} <= names
    assert len(names) == len({name for _, metrics in recorded.rows for name in metrics})
    assert [name for name in names if re.search(r"[^a-zA-Z0-9_/. -]", name)] == []
    assert [name for name in names for other in names if other.startswith(f"{name}/")] == []


@pytest.mark.filterwarnings("default")
def test_weights_and_biases_holds_the_same_points(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger, recorded = WandbLogger(save_dir=tmp_path, offline=True), Recorded()
    trained([recorded, logger], sparse(), Share())
    logger.experiment.finish()
    (file,) = tmp_path.rglob("run-*.wandb")
    assert_same_points(points_of_rows(rows_of_wandb(file)), points_of_rows(recorded.rows))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_mlflow_holds_the_same_points(store, tmp_path, monkeypatch):
    """In its file store and in a database."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.17 refuses file stores otherwise
    if store == "sqlite":
        pytest.importorskip("sqlalchemy", reason="mlflow's database needs sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if store == "sqlite" else f"file:{tmp_path / 'mlruns'}"
    recorded, logger = Recorded(), MLFlowLogger(tracking_uri=uri)
    trained([recorded, logger], sparse(), Share())
    given = {name for _, metrics in recorded.rows for name in metrics}
    names = {next(iter(names_for_mlflow({name: 0.0}))): name for name in given}
    client, run = logger.experiment, logger.run_id
    history = [point for name in client.get_run(run).data.metrics for point in client.get_metric_history(run, name)]
    stored = points_of_rows((point.step, {names[point.key]: point.value}) for point in history)
    assert_same_points(stored, points_of_rows(recorded.rows))
