"""TensorBoard's HPARAMS tab: a session for each alpha, read as TensorBoard does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import TINY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from lazy_lightning.callbacks.scalars import FOLDER, tag_of
from lazy_lightning.cli import main

pytestmark = pytest.mark.usefixtures("no_figures")


class Session(NamedTuple):
    hparams: dict[str, Any]
    metrics: list[str]
    scalars: dict[str, float]
    status: int


def session(folder: Path) -> Session:
    events = EventAccumulator(str(folder)).Reload()
    parts = {}
    for tag in ("experiment", "session_start_info", "session_end_info"):
        content = events.summary_metadata[f"_hparams_/{tag}"].plugin_data.content
        parts[tag] = plugin_data_pb2.HParamsPluginData.FromString(content)
    given = parts["session_start_info"].session_start_info.hparams
    values = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in given.items()}
    metrics = [info.name.tag for info in parts["experiment"].experiment.metric_infos]
    scalars = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return Session(values, metrics, scalars, parts["session_end_info"].session_end_info.status)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert main([*TINY, f"--trainer.logger.save_dir={folder}", "--trainer.enable_progress_bar=false"]) == 0
    return folder / "digits_fc/version_0"


def sessions(run: Path) -> dict[float, Session]:
    return {float(path.name.partition("=")[2]): session(path) for path in (run / FOLDER).iterdir()}


def test_a_session_an_alpha(run: Path) -> None:
    found = sessions(run)
    summary = json.loads((run / "summary.json").read_text())
    assert set(found) == {0.01, 100.0} == {group["alpha"] for group in summary["groups"]}
    for alpha, one in found.items():
        assert one.hparams["alpha"] == alpha
        assert one.hparams["h"] == 12
        assert one.hparams["sqrt_h_alpha"] == pytest.approx(np.sqrt(12) * alpha)
        assert one.hparams["seeds"] == 2
        assert one.hparams["model.network.width"] == 12
        assert one.hparams["model.network"] == "FC"
        assert one.hparams["data.n_train"] == 40
        assert not {"model.alpha", "model.seeds"} & set(one.hparams)  # of all sessions together
        assert one.status == api_pb2.STATUS_SUCCESS


def test_metrics_are_means_of_the_last_values(run: Path) -> None:
    members = json.loads((run / "summary.json").read_text())["members"]
    for alpha, one in sessions(run).items():
        own = [member for member in members if member["alpha"] == alpha]
        for name in ("test/error", "test/loss", "train/loss", "t", "displacement/total", "tangent_departure"):
            expected = np.mean([member[name] for member in own])
            assert one.scalars[tag_of(name)] == pytest.approx(expected, rel=1e-6)  # events are float32
        assert set(one.metrics) <= set(one.scalars)  # what the tab offers is what it finds


def test_what_matters_is_in_sight(run: Path) -> None:
    """The tab shows columns in their order: few settings, and the test error before all other metrics."""
    for one in sessions(run).values():
        assert one.metrics[0] == "1_main/test/error"
        assert len(one.metrics) <= 15
        assert len(one.hparams) <= 20


def test_the_run_itself_is_no_session(run: Path) -> None:
    """Else the tab would show a line without an alpha."""
    own = EventAccumulator(str(run)).Reload()
    assert not [tag for tag in own.summary_metadata if tag.startswith("_hparams_")]
    assert not own.Tags()["scalars"]  # they are in the runs of the alphas


def test_a_resumed_run_that_had_ended_has_its_sessions(run: Path, tmp_path: Path) -> None:
    """As after a kill between the last checkpoint and the end."""
    arguments = ["fit", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoint.ckpt"]
    assert main([*arguments, f"--trainer.logger.save_dir={tmp_path}"]) == 0
    again, first = sessions(tmp_path / "digits_fc/version_0"), sessions(run)
    for alpha, one in again.items():
        assert one.metrics == first[alpha].metrics
        assert one.hparams == first[alpha].hparams
        assert one.scalars == {tag: first[alpha].scalars[tag] for tag in one.metrics}


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict"])
def test_evaluations_leave_nothing_in_tensorboard(subcommand: str, run: Path, tmp_path: Path) -> None:
    """Each would be a run without a curve."""
    arguments = ["--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoint.ckpt"]
    assert main([subcommand, *arguments, "--data.n_val=5", f"--trainer.logger.save_dir={tmp_path}"]) == 0
    assert not list(tmp_path.rglob("events.out.tfevents*"))


def test_nothing_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    csv = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=here", "--trainer.enable_progress_bar=false"]
    assert main([*TINY, *csv]) == 0
    assert list(Path("here").rglob("summary.json"))
    assert not list(Path("here").rglob("events.out.tfevents*"))
    (metrics,) = Path("here").rglob("metrics.csv")
    assert "test/error/alpha=0.01" in metrics.read_text().splitlines()[0]
