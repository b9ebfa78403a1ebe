"""A run that a script has started by a plain Trainer is a run: the store finds it, and its identity is its own."""

from __future__ import annotations

import functools

import pytest
import torch
import yaml
from fits import digits
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lazy_lightning import load_runs
from lazy_lightning.callbacks import ClosingSummary, Curves, KernelDrift, OutputsWriter, RunCheckpoint
from lazy_lightning.cli import main
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
SHORT = StoppingCriteria(max_steps=4)
fc = functools.partial(FC, width=5, depth=1)


class Own(FlowModule):
    """A module of the user's, with arguments of its own."""

    def __init__(self, hidden: int = 4) -> None:
        super().__init__(functools.partial(FC, width=hidden, depth=1), stop=SHORT, **MEMBERS)


MODULES = {
    "flow": lambda: FlowModule(fc, stop=SHORT, **MEMBERS),
    "kernel": lambda: KernelModule(fc, stop=SHORT, **MEMBERS),
    "mini-batches": lambda: MiniBatchModule(fc, loss="mse", **MEMBERS),
    "own": lambda: Own(hidden=6),
    "lambda": lambda: FlowModule(
        lambda input_shape: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), stop=SHORT, **MEMBERS
    ),
}


def fitted(folder, module, *more, **data):
    """The folder of a run with all that writes."""
    mini = isinstance(module, MiniBatchModule)
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=2 if mini else -1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name="own"),
        callbacks=[Curves(), OutputsWriter(), RunCheckpoint(), ClosingSummary(), *more],
    )
    trainer.fit(module, datamodule=digits(n_train=16, n_test=10, **({"batch_size": 8} if mini else {}), **data))
    return folder / "own"


@pytest.mark.parametrize("kind", MODULES)
def test_the_store_finds_it(kind, tmp_path, capsys):
    folder = fitted(tmp_path, MODULES[kind](), KernelDrift(samples=4))
    runs = load_runs(folder)
    assert len(runs) == 4
    assert set(runs.status) == {"finished"}
    assert sorted(set(zip(runs.alpha, runs.seed, strict=True))) == [(0.1, 0), (0.1, 1), (10.0, 0), (10.0, 1)]
    assert runs["data.n_train"].tolist() == [16] * 4
    assert len(runs.curves.load()) >= 8
    saved = yaml.safe_load((folder / "version_0/config.yaml").read_text())
    assert saved["made_from"] == "python"
    capsys.readouterr()
    assert main(["runs", "list", str(folder)]) == 0
    assert main(["runs", "show", str(folder / "version_0")]) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    if kind in ("flow", "kernel"):
        assert runs["model.network"].tolist() == ["FC"] * 4
        assert runs["model.network.width"].tolist() == [5] * 4
        assert runs["model.stop.max_steps"].tolist() == [4] * 4


def identities(tmp_path, module, *more, **data):
    return set(load_runs(fitted(tmp_path, module, *more, **data)).id)


def test_what_differs_has_another_identity(tmp_path):
    """Networks, their functions, samples, limits, observers; the same again has the same."""
    small = {"alpha": 1.0}
    made = {
        "base": lambda: FlowModule(fc, stop=SHORT, **small),
        "width": lambda: FlowModule(functools.partial(FC, width=6, depth=1), stop=SHORT, **small),
        "stop": lambda: FlowModule(fc, stop=StoppingCriteria(max_steps=5), **small),
        "lambda": lambda: FlowModule(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), stop=SHORT, **small),
        "another": lambda: FlowModule(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False)), stop=SHORT),
    }
    found = {name: identities(tmp_path / name, module()) for name, module in made.items()}
    found["samples"] = identities(tmp_path / "samples", made["base"](), train_seed=1)
    found["observer"] = identities(tmp_path / "observer", made["base"](), KernelDrift(samples=4))
    assert identities(tmp_path / "again", made["base"]()) == found["base"]
    assert len(set().union(*found.values())) == len(found)


def test_seeds_added_later_keep_the_others_identities(tmp_path):
    one = identities(tmp_path / "one", FlowModule(fc, alpha=1.0, seeds=1, stop=SHORT))
    two = identities(tmp_path / "two", FlowModule(fc, alpha=[1.0, 2.0], seeds=[0, 3], stop=SHORT))
    assert one < two


def test_a_configuration_of_the_command_line_is_left_alone(tmp_path, monkeypatch, no_figures):
    monkeypatch.chdir(tmp_path)
    options = ["--model.network.width=4", "--model.stop.max_steps=3", "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml", *options]) == 0
    (config,) = tmp_path.rglob("config.yaml")
    assert "made_from" not in config.read_text()


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "own/version_0").mkdir(parents=True)
    other = tmp_path / "own/version_0/config.yaml"
    other.write_text("answer: 42\n")
    logger = CSVLogger(tmp_path, name="own", version="version_0")
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        logger=logger,
        callbacks=[Curves()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with pytest.warns(UserWarning, match="not empty"):
        trainer.fit(FlowModule(fc, alpha=1.0, stop=SHORT), datamodule=digits(n_train=16, n_test=10))
    assert other.read_text() == "answer: 42\n"
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
