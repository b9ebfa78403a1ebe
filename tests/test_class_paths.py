"""A configuration names classes and functions: nothing is called that its argument is not annotated to take."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import QUIET, error_of
from torch import nn

from lazy_lightning.cli import main
from lazy_lightning.objective.losses import MSE, Loss

pytestmark = pytest.mark.usefixtures("own_folder")

CALLED: list[str] = []


def note(what: str, result: Any = None) -> Any:
    CALLED.append(what)
    return result


class Canary:
    """What a configuration must not build."""

    def __init__(self, *args: object, **options: object) -> None:
        note("class")

    def __call__(self, *args: object) -> None:
        note("object")

    @classmethod
    def make(cls) -> None:
        note("class method")


def effect(command: str = "", *args: object, **options: object):  # without an annotation
    return note("function", nn.Linear(1, 1))


def annotated(input_shape: tuple[int, ...] = (8, 8), num_outputs: int = 1) -> nn.Module:
    return Net(input_shape, num_outputs)


class Net(nn.Module):
    def __init__(
        self,
        input_shape: tuple[int, ...] = (8, 8),
        num_outputs: int = 1,
        untyped=None,
        anything: object = None,
        inner: nn.Module | None = None,
        several: list[Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.parts = (untyped, anything, inner, several)
        self.head = nn.Linear(torch.Size(input_shape).numel(), num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)).squeeze(-1)


class Half(MSE):
    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor


@pytest.fixture(autouse=True)
def own_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``own`` holds what stands here, as if it were a user's package."""
    own = types.ModuleType("own")
    for thing in (Canary, effect, annotated, Net, Half):
        thing.__module__ = "own"
        setattr(own, thing.__name__, thing)
    instance = object.__new__(Canary)
    own.instance = instance  # type: ignore[attr-defined]
    own.Loss, own.nn, own.torch, own.Any = Loss, nn, torch, Any  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own", own)
    CALLED.clear()
    yield
    assert CALLED == []
    assert not Path("touched").exists()


EVIL = (
    "os.system",
    "posix.system",
    "subprocess.call",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "functools.partial",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "antigravity.geohash",
    "own.Canary",
    "own.Canary.make",
    "own.effect",
    "own.instance",
)
SPEC = "{class_path: %s, init_args: {command: touch touched}}"
BARE = "{class_path: %s}"
KEYWORDS = "{class_path: %s, dict_kwargs: {command: touch touched, args: touch touched, f: touched}}"


@pytest.mark.parametrize("path", EVIL)
def test_network_that_is_none_is_not_called(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("%s", KEYWORDS if path.startswith("own") else SPEC):
        error_of([*QUIET, f"--model.network={form % path}"], capsys)
    assert "antigravity" not in sys.modules


KEYS = ("model", "data", "trainer", "model.loss", "model.controller", "model.stop", "model.schedule", "model.alpha")
TRAINER = ("logger", "callbacks", "callbacks+", "strategy", "plugins", "profiler", "max_time", "accelerator")


@pytest.mark.parametrize("key", [*KEYS, *(f"trainer.{name}" for name in TRAINER), "seed_everything"])
def test_no_key_calls_what_it_is_given(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (SPEC % "own.effect", "own.effect", BARE % "own.Canary"):
        error_of([*QUIET, f"--{key}={value}"], capsys)


INSIDE = (
    "{class_path: own.Net, init_args: {untyped: %s}}",
    "{class_path: own.Net, init_args: {anything: %s}}",
    "{class_path: own.Net, init_args: {inner: %s}}",
    "{class_path: own.Net, init_args: {several: [1, %s]}}",
    "{class_path: own.Net, init_args: {untyped: {deep: [%s]}}}",
    "{class_path: own.Net, init_args: {untyped: {class_path: own.Net, init_args: {untyped: %s}}}}",
    "{class_path: own.Net, dict_kwargs: {more: %s}}",
    "{class_path: lazy_lightning.nn.Symmetrized, init_args: {network: %s}}",
)


@pytest.mark.parametrize("form", INSIDE)
def test_nor_does_an_argument_inside(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("own.Canary", "own.effect"):
        error_of([*QUIET, f"--model.network={form % (BARE % path)}"], capsys)


@pytest.mark.parametrize("path", ["os.system", "own.effect", "own.Canary", "own.instance", BARE % "functools.partial"])
def test_callback_of_functions(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    callback = "pytorch_lightning.callbacks.LambdaCallback"
    form = f"{{class_path: {callback}, init_args: {{on_fit_start: {path}}}}}"
    error_of([*QUIET, f"--trainer.callbacks+={form}"], capsys)


def test_optimizer_and_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    minibatch = ["fit", "--config", "digits_minibatch.yaml"]
    for key in ("optimizer", "lr_scheduler"):
        for value in (BARE % "own.effect", "own.effect", BARE % "own.Canary"):
            error_of([*minibatch, f"--model.{key}={value}"], capsys)


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict", "kernel", "sweep"])
def test_every_subcommand_checks(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    error_of([subcommand, *QUIET[1:], f"--model.network={BARE % 'own.effect'}"], capsys)


def test_grid_of_a_sweep_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.yaml").write_text("grid:\n  model.network: [{class_path: own.effect}]\n")
    said = error_of(["sweep", *QUIET[1:], "--sweep", "grid.yaml", "--out", "out", "--dry_run"], capsys)
    assert "own.effect is neither" in said


def test_stored_configuration_of_a_run_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUIET, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    config["model"]["init_args"]["network"] = {"class_path": "own.effect"}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    assert "own.effect is neither" in error_of(["fit", "--config", "config.yaml"], capsys)


def test_checkpoint_does_not_choose_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(
        {"hyper_parameters": {"_class_path": "own.effect", "command": "touch touched"}, "state_dict": {}}, "x.ckpt"
    )
    assert "not a checkpoint of a run" in error_of([*QUIET, "--ckpt_path=x.ckpt"], capsys)


def test_tags_interpolation_and_addresses_stay_texts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "3")
    for text in ("!!python/object/apply:os.system [touch touched]", "!!python/name:os.system", "!!python/module:os"):
        Path("own.yaml").write_text(f"model:\n  init_args:\n    alpha: {text}\n")
        assert "is not plain data" in error_of([*QUIET, "--config", "own.yaml"], capsys)
    error_of([*QUIET, "--model.alpha=!!python/object/apply:os.system [touch touched]"], capsys)
    for value in ("${oc.env:SECRET}", "@own.yaml"):
        assert f"model.alpha is {value}" in error_of([*QUIET, f"--model.alpha={value}"], capsys)
    for value in ("memory://own.yaml", "http://localhost:9/x"):
        assert "cannot be imported" in error_of([*QUIET, f"--model={value}"], capsys)


def test_what_is_allowed_is_built() -> None:
    inner = "{untyped: {class_path: torch.nn.ReLU}, inner: torch.nn.ReLU, several: [{class_path: torch.nn.Tanh}]}"
    for network in ("own.annotated", "own.Net", f"{{class_path: own.Net, init_args: {inner}}}"):
        assert main([*QUIET, f"--model.network={network}"]) == 0


@pytest.mark.usefixtures("no_figures")
def test_loss_by_its_dotted_name() -> None:
    """As by a ``class_path``, and both are saved alike."""
    for loss in ("own.Half", "{class_path: own.Half}"):
        assert (
            main([*QUIET, f"--model.loss={loss}", "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=."])
            == 0
        )
    saved = sorted(Path.cwd().rglob("config.yaml"))
    assert len(saved) == 2
    assert saved[0].read_text() == saved[1].read_text()
    assert "factor: 0.5" in saved[0].read_text()


def test_dotted_name_that_is_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"own.Net": "is not a Loss", "own.Nope": "cannot be imported", "os.system": "standard library"}
    for name, sentence in refused.items():
        assert sentence in error_of([*QUIET, f"--model.loss={name}"], capsys)
