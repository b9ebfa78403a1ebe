"""An observer or a sink that fails does not cost what has been trained."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest
import torch
from fits import fit, module
from observed import APART, interrupted, small, watch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lazy_lightning.callbacks import (
    T1,
    ClosingSummary,
    Curves,
    DisableCallbacks,
    KernelDrift,
    KernelSnapshots,
    LearningCurves,
    OutputsWriter,
    RunCheckpoint,
    TangentDeparture,
    WeightDisplacement,
)
from lazy_lightning.errors import ConfigError, DataError, RunError
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.modules.observation import Observer, Sink
from lazy_lightning.runs.run_files import CHECKPOINT, CURVES, OUTPUTS, SUMMARY

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}


class Failing(Observer):
    """Raises from some observation on."""

    column_names = ("failing/value",)

    def __init__(self, error: BaseException, start: int) -> None:
        self.error, self.start, self.calls = error, start, 0

    def observe(self, module, observation):
        self.calls += 1
        if observation.index >= self.start:
            raise self.error
        return {"failing/value": observation.state.t + 1.0, "failing/other": observation.state.t}


ERRORS = [
    RuntimeError("no rule"),
    NotImplementedError(),
    ZeroDivisionError("x"),
    DataError("too small"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_columns_are_nan_from_the_failure_on(error, tmp_path, caplog):
    observer = Failing(error, start=3)
    run = fit(tmp_path, callbacks=[observer, ClosingSummary(), RunCheckpoint(), OutputsWriter()], **SHORT)
    for name in ("failing/value", "failing/other"):
        assert run.table[run.table.observation < 3][name].notna().all()
        assert run.table[run.table.observation >= 3][name].isna().all()
    assert observer.calls == 4
    assert sum("Failing failed" in record.message for record in caplog.records) == 1
    assert all((tmp_path / name).is_file() for name in (SUMMARY, CHECKPOINT, OUTPUTS, CURVES))
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        assert "out of memory" in caplog.text


def test_reported_before_training(tmp_path, caplog):
    run = watch(tmp_path, Failing(RuntimeError("no rule"), start=0), **SHORT)
    assert run.table["failing/value"].isna().all()
    (message,) = (record.message for record in caplog.records if "Failing" in record.message)
    assert "no rule" in message
    assert "failing/value" in message


def test_interrupts_are_not_failures(tmp_path):
    class Stopped(Observer):
        def observe(self, module, observation):
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        watch(tmp_path, Stopped(), **SHORT)


WRONG = {
    "list": [1.0],
    "shape": {"x": torch.ones(3)},
    "scalar": {"x": 1.0},
    "complex": {"x": torch.ones(4, dtype=torch.complex64)},
    "text": {"x": "many"},
    "name of the module's own": {"t": torch.zeros(4)},
}


@pytest.mark.parametrize("returned", WRONG.values(), ids=WRONG)
def test_what_is_no_column(returned, tmp_path, caplog):
    class Wrong(Observer):
        def observe(self, module, observation):
            return returned

    table = watch(tmp_path, Wrong(), **SHORT).table
    assert "Wrong failed in observe" in caplog.text
    assert table[table.observation == table.observation.max()]["t"].gt(0).all()


def test_an_observer_that_failed_stays_off_after_a_resume(tmp_path):
    """What depends on every observation would be wrong, were it measured again with a gap."""
    second = interrupted(tmp_path, lambda: [Failing(RuntimeError("once"), start=3)], **APART)
    later = second.table[second.table.observation >= 3]
    assert len(later)
    assert later["failing/value"].isna().all()


def test_t1_bears_an_observer_that_failed(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(KernelDrift, "measure", broken)
    monkeypatch.setattr(TangentDeparture, "_measure", broken)
    observers = [KernelDrift(), TangentDeparture(always=True), T1(("half_loss", "kernel_drift", "tangent_departure"))]
    run = watch(tmp_path, *observers, **{**MEMBERS, "stop": StoppingCriteria(loss=0.4, max_steps=300)})
    assert run.last("t1/half_loss")[0] > 0
    assert pd.isna(run.last("t1/kernel_drift")).all()
    assert pd.isna(run.last("tangent_departure")).all()


def test_settings_that_do_not_fit_still_end_the_run_before_training(tmp_path):
    with pytest.raises(ConfigError, match="KernelDrift observer"):
        watch(tmp_path, T1(["kernel_drift"]), **SHORT)
    with pytest.raises(ConfigError, match="kernel set"):
        watch(tmp_path, KernelDrift(split="kernel"), **SHORT)


class BadSink(Sink):
    """Raises wherever it is called."""

    def record(self, trainer, module, record):
        raise OSError("no space left")

    def on_train_end(self, trainer, pl_module):
        raise ValueError("cannot draw")

    def on_fit_end(self, trainer, pl_module):
        raise ValueError("cannot draw")

    def state_dict(self):
        raise ValueError("no state")


def test_a_failing_sink_costs_nothing_else(tmp_path, caplog):
    with pytest.raises(
        RunError, match=r"what BadSink writes \(ValueError: cannot draw\) could not be written"
    ) as raised:
        fit(tmp_path, callbacks=[BadSink(), ClosingSummary(), RunCheckpoint(), OutputsWriter()], **SHORT)
    assert str(raised.value).count("BadSink") == 1
    assert all((tmp_path / name).is_file() for name in (SUMMARY, CHECKPOINT, OUTPUTS, CURVES))
    told = [record.message for record in caplog.records if "BadSink" in record.message]
    assert len(told) == 4  # once each
    assert any("no space left" in message for message in told)


def test_a_figure_that_cannot_be_drawn(tmp_path, monkeypatch, caplog):
    def broken(*given):
        raise ValueError("nothing to draw")

    monkeypatch.setattr("lazy_lightning.callbacks.learning_curves.learning_curves", broken)
    with pytest.raises(RunError, match="what LearningCurves writes"):
        fit(tmp_path, callbacks=[LearningCurves(), ClosingSummary(), OutputsWriter()], **SHORT)
    assert (tmp_path / SUMMARY).is_file()
    assert "LearningCurves failed in on_train_end (ValueError: nothing to draw)" in caplog.text


WRITERS = {
    CURVES: "lazy_lightning.callbacks.curves.Curves.table",
    CHECKPOINT: "lazy_lightning.runs.checkpoints.torch.save",
    OUTPUTS: "lazy_lightning.callbacks.saved_arrays.save_file",
    SUMMARY: "lazy_lightning.callbacks.closing_summary.written_atomically",
}


@pytest.mark.parametrize("file", WRITERS)
def test_a_file_whose_writing_fails_is_named_and_all_others_are_written(file, tmp_path, monkeypatch, capsys):
    """Whatever the failure: not only a disk that is full."""

    def broken(*args, **kwargs):
        raise ValueError("cannot be converted")

    monkeypatch.setattr(WRITERS[file], broken)
    callbacks = [Curves(), ClosingSummary(), RunCheckpoint(every_seconds=0.0), OutputsWriter()]
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=callbacks,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    with pytest.raises(RunError, match=f"{file} could not be written, while the rest"):
        trainer.fit(module(**SHORT), datamodule=small())
    assert not (tmp_path / file).exists()
    assert all((tmp_path / name).is_file() for name in WRITERS if name != file)
    assert capsys.readouterr().err.count(f"{file} (ValueError: cannot be converted)") == 1


def test_a_sink_that_recovers_ends_well(tmp_path):
    class Late(Sink):
        def record(self, trainer, module, record):
            if record.index < 2:
                raise OSError("not yet")

    fit(tmp_path, callbacks=[Late()], **SHORT)


# ---------------------------------------------------------------------- networks that observers find hard


class Attention(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        z = self.embed(x.flatten(1).unsqueeze(-1))
        return self.head(self.attend(z, z, z)[0].mean(dim=1))


class Transformer(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x.flatten(1).unsqueeze(-1))).mean(dim=1))


class Fused(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.q, self.head = nn.Linear(1, 4), nn.Linear(4, 1)

    def forward(self, x):
        z = self.q(x.flatten(1).unsqueeze(-1))
        return self.head(nn.functional.scaled_dot_product_attention(z, z, z).mean(dim=1))


class Normed(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        with pytest.warns(FutureWarning):
            self.hidden = nn.utils.weight_norm(nn.Linear(*input_shape, 5))
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(x)))


class Recurrent(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1).unsqueeze(-1))[0][:, -1])


def everything() -> list[Callback]:
    """The observers and sinks of all presets."""
    import yaml

    from lazy_lightning import callbacks
    from lazy_lightning.cli.bundled import bundled_configs, find_config

    names = {}
    for preset in (name for name in bundled_configs() if name.startswith("callbacks/")):
        for item in yaml.safe_load(find_config(preset).read_text())["trainer"]["callbacks+"]:
            cls = getattr(callbacks, item["class_path"].rpartition(".")[2])
            names[cls.__name__] = cls(**item.get("init_args", {}))
    return [*names.values(), ClosingSummary(), RunCheckpoint(), OutputsWriter()]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap, for want of a rule
@pytest.mark.filterwarnings("ignore:.*one member after the other")
@pytest.mark.parametrize("network", [Attention, Transformer, Fused, Normed, Recurrent])
def test_all_observers_on_networks_that_are_hard_to_differentiate(network, tmp_path, caplog):
    from lazy_lightning.modules import FlowModule

    caplog.set_level(logging.WARNING)
    model = FlowModule(network, loss="mse", alpha=1.0, seeds=1, stop=StoppingCriteria(max_steps=4), dt=0.1)
    run = watch(tmp_path, *everything(), model=model, data=small(n_train=6, n_test=5))
    assert all((tmp_path / name).is_file() for name in (SUMMARY, CHECKPOINT, OUTPUTS, CURVES))
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["members"][0]["tried"] == 4
    assert run.table["displacement/total"].notna().all()
    failed = [record.getMessage() for record in caplog.records if " failed in " in record.getMessage()]
    assert len(failed) == len({message.split()[0] for message in failed})  # each says so once
    print(caplog.text)


# ---------------------------------------------------------------------- switched off


def test_callbacks_are_switched_off_by_name(tmp_path):
    off = DisableCallbacks(["TangentDeparture", "OutputsWriter", "KernelSnapshots"])
    run = fit(tmp_path, callbacks=[OutputsWriter(), KernelSnapshots(), off], **SHORT)
    assert "tangent_departure" not in run.table
    assert not (tmp_path / OUTPUTS).exists()
    assert "displacement/total" in run.table


def test_no_callback_of_this_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean WeightDisplacement"):
        watch(tmp_path, WeightDisplacement(), DisableCallbacks("WeightDisplacment"), **SHORT)
