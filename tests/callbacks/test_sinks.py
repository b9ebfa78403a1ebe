"""What a run leaves in its folder, however it ends."""

import json
import os
import signal
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import TINY
from fits import assert_same_curves, digits, fit
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lazy_lightning.callbacks import (
    ClosingSummary,
    Curves,
    FlowProgressBar,
    GracefulStop,
    LearningCurves,
    RunCheckpoint,
    TensorBoardScalars,
)
from lazy_lightning.callbacks.progress import progress_share
from lazy_lightning.callbacks.scalars import alpha_folder, tag_of
from lazy_lightning.cli import main
from lazy_lightning.cli.bundled import bundled_configs
from lazy_lightning.errors import DataError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.modules.observation import Record
from lazy_lightning.runs.run_files import CHECKPOINT, CURVES
from lazy_lightning.runs.run_folder import RunFolder

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}


def sinks():
    return [ClosingSummary(), RunCheckpoint(), GracefulStop()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"), callbacks=[*sinks(), LearningCurves()], **MEMBERS)


def summary_of(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def test_a_changed_digit_in_the_summary_is_found_by_its_checksum(run, tmp_path):
    text = (run.folder / "summary.json").read_text()
    assert RunFolder(run.folder).summary == json.loads(text)
    place = text.index('"train/loss": ') + len('"train/loss": 0.')
    (tmp_path / "summary.json").write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    with pytest.raises(DataError, match=r"summary.json has been changed since it was written: .* checksum"):
        _ = RunFolder(tmp_path).summary
    old = {name: value for name, value in json.loads(text).items() if name != "crc32"}  # as of 0.1.0
    (tmp_path / "summary.json").write_text(json.dumps(old))
    assert RunFolder(tmp_path).summary == old


def test_curves_are_float64_and_whole(run):
    table = pd.read_parquet(run.folder / CURVES)
    pd.testing.assert_frame_equal(table, run.table, check_exact=True)
    measured = table.drop(columns=["observation", "member", "seed"])
    assert {str(kind) for kind in measured.dtypes} == {"float64"}
    assert len(table) == 4 * (table.observation.max() + 1)


def test_summary(run):
    summary = summary_of(run.folder)
    assert summary["schema"] == 1
    assert summary["width"] == 12
    assert summary["weights"] == 12 * 64 + 12 * 12 + 12
    assert summary["gradient_evaluations"] == 61
    assert [m["alpha"] for m in summary["members"]] == [0.1, 0.1, 10.0, 10.0]
    assert [m["seed"] for m in summary["members"]] == [0, 1, 0, 1]
    assert {m["stop"] for m in summary["members"]} <= {"max_steps", "margins_met"}
    assert [m["test/error"] for m in summary["members"]] == run.last("test/error")
    for k, group in enumerate(summary["groups"]):
        errors = run.last("test/error")[2 * k : 2 * k + 2]
        assert group["mean"]["test/error"] == pytest.approx(np.mean(errors))
        assert group["std"]["test/error"] == pytest.approx(np.std(errors, ddof=1))
        assert group["sqrt_h_alpha"] == pytest.approx(np.sqrt(12) * group["alpha"])
        assert (group["members"], group["failed"]) == (2, 0)
        assert group["regime"] in ("lazy", "crossover", "feature", "undecided")


def test_figure_is_an_image(run):
    content = (run.folder / "figures/learning_curves.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", content[16:24])
    assert 600 < width < 6000
    assert 200 < height < 3000
    assert len(content) > 10_000  # not blank
    assert (run.folder / "figures/learning_curves.pdf").read_bytes().startswith(b"%PDF")


class Interrupt(Callback):
    def __init__(self, number, burst=6):
        self.number, self.left = number, burst

    def on_train_batch_start(self, *args):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_run_with_everything_written(tmp_path, run, number):
    before = signal.getsignal(number)
    callbacks = sinks()
    stopped = fit(tmp_path / "a", callbacks=[*callbacks, Interrupt(number)], **MEMBERS)
    assert callbacks[-1].received is number
    assert signal.getsignal(number) is before
    assert stopped.module.flow.reasons == [StopReason.RUNNING] * 4
    assert stopped.table.observation.max() == 6  # the burst under way was finished
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a" / CURVES), stopped.table, check_exact=True)
    assert {m["stop"] for m in summary_of(tmp_path / "a")["members"]} == {"interrupted"}
    assert torch.load(tmp_path / "a" / CHECKPOINT, weights_only=True)["lazy_lightning"]["observations"] == 7
    resumed = fit(tmp_path / "b", ckpt_path=tmp_path / "a" / CHECKPOINT, **MEMBERS)
    assert_same_curves(resumed.table, run.table)


class Break(Callback):
    def on_train_batch_end(self, trainer, module, *args):
        if module.observations == 5:
            raise RuntimeError("broken")


def test_error_leaves_the_curves_and_gives_signals_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, callbacks=[*sinks(), Break()], **MEMBERS)
    assert pd.read_parquet(tmp_path / CURVES).observation.max() == 4
    assert signal.getsignal(signal.SIGINT) is before
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)  # of a whole burst, never of the broken one
    assert saved["lazy_lightning"]["observations"] < 5


def test_all_members_failed(tmp_path):
    """Every sink bears a run without a single finite number."""
    data = digits()
    data.setup()
    data.train.x[0] = torch.nan
    fit(tmp_path, data=data, callbacks=[*sinks(), LearningCurves(), FlowProgressBar()], **MEMBERS)
    summary = summary_of(tmp_path)
    assert [group["failed"] for group in summary["groups"]] == [2, 2]
    assert {m["stop"] for m in summary["members"]} == {"non_finite"}
    assert summary["groups"][0]["mean"]["train/loss"] is None
    assert len(pd.read_parquet(tmp_path / CURVES)) == 4


def test_no_temporary_files_are_left(run):
    assert not list(run.folder.rglob(".*"))


def test_progress_in_a_log(tmp_path, capsys):
    fit(tmp_path, callbacks=[FlowProgressBar(every_seconds=0)], **MEMBERS, stop=StoppingCriteria(max_steps=4))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("flow")]
    assert len(lines) == 5
    assert "100.0 %" in lines[-1]
    assert "members 0/4" in lines[-1]
    assert "25.0 %" in lines[1]


@pytest.mark.parametrize(
    ("stop", "columns", "expected"),
    [
        (StoppingCriteria(), {"train/margin_met": [0.5, 1.0]}, 0.75),
        (StoppingCriteria(margin_share=0.5), {"train/margin_met": [0.25, 0.0]}, 0.25),
        (StoppingCriteria(t_max=4.0), {"t": [1.0, 3.0]}, 0.5),
        (StoppingCriteria(max_steps=10), {"tried": [5.0, 5.0], "reason": [0.0, 1.0]}, 0.75),
        (StoppingCriteria(max_wall=4.0), {}, 0.25),
        (StoppingCriteria(t_max=1.0), {"t": [5.0, np.nan]}, 0.5),
    ],
)
def test_progress_share(stop, columns, expected):
    from fits import module

    zero = {name: np.zeros(2) for name in ("reason", "t", "tried")}
    record = Record(0, 1.0, False, zero | {name: np.array(x) for name, x in columns.items()})
    assert progress_share(module(stop=stop), record) == pytest.approx(expected)


def test_scalars_of_tensorboard(tmp_path):
    from fits import module

    curves, model = Curves(), module(**MEMBERS, stop=StoppingCriteria(max_steps=5))
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        logger=TensorBoardLogger(tmp_path, default_hp_metric=False),
        callbacks=[curves, TensorBoardScalars(), LearningCurves()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=digits())
    table, tags = curves.table(model), []
    for alpha in MEMBERS["alpha"]:
        events = EventAccumulator(str(alpha_folder(Path(trainer.log_dir), alpha))).Reload()
        tags.append(events.Tags()["scalars"])
        rows = table[table.alpha == alpha].groupby("observation")
        found = events.Scalars("1_main/train/loss")
        assert [event.step for event in found] == list(range(6))
        np.testing.assert_allclose([e.value for e in found], rows["train/loss"].mean(), rtol=1e-6)  # float32 events
        described = {tag: events.SummaryMetadata(tag).summary_description for tag in tags[-1]}
        assert all("Horizontal axis" in text for text in described.values())
        assert "1000 log10(t)" in described["2_main_against_t/train/loss"]
        times = [event.step for event in events.Scalars("2_main_against_t/train/loss")]
        assert times == [
            round(1000 * x)
            for x in np.log10(table[(table.alpha == alpha) & (table.t > 0)].t).groupby(table.observation).mean()
        ]
    assert set(tags[0]) == set(tags[1])  # so that all alphas are in one chart
    assert {"1_main/test/error", "1_main/test/loss", "flow/dt"} <= set(tags[0])
    assert sum("against_t" in tag for tag in tags[0]) < len(tags[0]) / 3
    images = EventAccumulator(trainer.log_dir).Reload()
    assert set(images.Tags()["images"]) == {f"learning_curves/{name}" for name in ("loss", "error")}
    for tag in images.Tags()["images"]:  # a panel an image, because TensorBoard shows them at the width of a card
        (image,) = images.Images(tag)
        assert (image.width, image.height) == (800, 600)


LAYERS = ("total", "hidden.0", "hidden.1", "hidden.2", "head")
T1S = ["half_loss", "kernel_drift", "tangent_departure"]
SPECTRUM = [f"kernel_spectrum/{x}" for x in ("effective_rank", "top_eigenvalue", "label_share", "intrinsic_dimension")]
DRIFT = [*(f"kernel_drift/{layer}" for layer in LAYERS), "kernel_alignment", "label_alignment"]
NORMS = ("jacobian_norm", "second_derivative_norm", "target_distance")
LAZINESS = ["laziness_index", *(f"laziness/{name}" for name in NORMS)]
PATH = ["path_distance/rms", "path_distance/sup"]
TIMES = [*(f"t1/{name}" for name in T1S), "t_lazy/norm", "t_lazy/labels"]
DISPLACEMENT = [f"{kind}/{layer}" for kind in ("displacement", "dw_max", "dw_mean") for layer in LAYERS[1:]]
DISPLACEMENT += ["displacement/total"]
ACTIVATIONS = [f"activation_{kind}/{layer}" for kind in ("drift", "velocity") for layer in LAYERS[1:]]
EVOLUTION = [
    f"kernel_evolution/{x}" for x in ("norm", "alignment", "label_alignment", "velocity", "test_loss", "test_error")
]
PRESETS = {
    "activation.yaml": ACTIVATIONS,
    "displacement.yaml": DISPLACEMENT,
    "evolution.yaml": EVOLUTION,
    "full.yaml": [*DISPLACEMENT, *ACTIVATIONS, *DRIFT, *SPECTRUM, *TIMES, *LAZINESS, *PATH, "tangent_departure"],
    "laziness.yaml": [*LAZINESS, *PATH],
    "neurons.yaml": [],  # of two-layer networks in the plane
    "ntk.yaml": [*DRIFT, *SPECTRUM],
    "sharpness.yaml": [f"sharpness/{x}" for x in ("largest", "smallest", "error", "trace", "trace_error", "limit")],
    "stability.yaml": [],  # of networks with ReLUs, and this one has softplus
    "t1.yaml": [*DRIFT, *TIMES, "tangent_departure"],
    "tangent.yaml": ["tangent_departure"],
}


def measured_by(presets, tmp_path, monkeypatch):
    """The folder of a tiny run by the command line, and which columns it has beside those of every run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearningCurves, "on_train_end", lambda *args: None)  # which takes longer than all the rest
    stacked = [part for preset in presets for part in ("--config", f"callbacks/{preset}")]
    assert main([*TINY, *stacked, "--model.stop.max_steps=8", "--trainer.enable_progress_bar=false"]) == 0
    (curves,) = Path("runs").rglob(CURVES)
    return curves.parent, set(pd.read_parquet(curves).filter(regex="/|_").columns)


@pytest.fixture(scope="module")
def in_every_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return measured_by([], tmp_path_factory.mktemp("plain"), monkeypatch)[1]


def test_every_preset_is_known_here():
    assert {f"callbacks/{name}" for name in PRESETS} == {n for n in bundled_configs() if n.startswith("callbacks/")}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "full.yaml"])  # which is in the next
def test_preset_measures_its_columns(preset, in_every_run, tmp_path, monkeypatch):
    _, columns = measured_by([preset], tmp_path, monkeypatch)
    assert columns - in_every_run == set(PRESETS[preset]) - in_every_run
    assert set(PRESETS[preset]) <= columns


def test_all_presets_together_are_in_every_sink(tmp_path, monkeypatch):
    folder, columns = measured_by([*PRESETS, "full.yaml"], tmp_path, monkeypatch)
    wanted = {name for names in PRESETS.values() for name in names}
    assert set(PRESETS["full.yaml"]) | set(PRESETS["sharpness.yaml"]) | set(EVOLUTION) == wanted
    assert wanted <= columns
    summary = summary_of(folder)
    for member in summary["members"]:
        assert wanted <= set(member)
    for group in summary["groups"]:
        assert wanted <= set(group["mean"])
    known = {name for name in wanted if group["mean"][name] is not None}
    assert wanted - known <= {f"t1/{name}" for name in T1S}  # eight steps are short
    tags = EventAccumulator(str(alpha_folder(folder, group["alpha"]))).Reload().Tags()["scalars"]
    assert {tag_of(name) for name in known} <= set(tags)
