"""A user's own package: typed network, loss, table of real numbers and observer, by configuration and by script."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import error_of
from fits import members_at_the_end

from lazy_lightning import load_runs
from lazy_lightning.cli import main
from lazy_lightning.data import TableFile
from lazy_lightning.modules import FlowModule, StoppingCriteria

PACKAGE = """
import torch
from torch import nn
from lazy_lightning.objective.losses import Loss
from lazy_lightning.modules.observation import NetworkObserver


class Typed(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int = 8) -> None:
        super().__init__()
        self.inner = nn.Linear(input_shape[0], width)
        self.outer = nn.Linear(width, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(x)))


class PassesOn(Typed):
    def __init__(self, width: int = 8, **options) -> None:
        super().__init__(width=width, **options)


class WithDefaults(Typed):
    def __init__(self, input_shape: tuple[int, ...] = (1,), num_outputs: int = 1, width: int = 8) -> None:
        super().__init__(input_shape, num_outputs, width)


class PassesOnDefaults(WithDefaults):
    def __init__(self, width: int = 8, **options) -> None:
        super().__init__(width=width, **options)


class Classes(Typed):
    def __init__(self, input_shape: tuple[int, ...], num_classes: int, width: int = 8) -> None:
        super().__init__(input_shape, num_classes, width)


def function(input_shape: tuple[int, ...], num_outputs: int, width: int = 8) -> nn.Module:
    return Typed(input_shape, num_outputs, width)


def passes_on(width: int = 8, **options) -> nn.Module:
    return Typed(width=width, **options)


class Needs(Typed):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, depth: int) -> None:
        super().__init__(input_shape, num_outputs)


class LogCosh(Loss):
    name = "log_cosh"
    supports = frozenset({"regression"})
    has_margin_stop = False

    def per_sample(self, F, y):
        gap = torch.log(torch.cosh(F - y))
        return gap.sum(-1) if y.ndim == 2 else gap


class OutputNorm(NetworkObserver):
    def observe(self, module, observation):
        return {"own/moved": (module.w.detach() - module.w0).norm(dim=-1)}
"""
CONFIGURATION = """
trainer:
  accelerator: cpu
  logger:
    class_path: pytorch_lightning.loggers.TensorBoardLogger
    init_args: {save_dir: runs, name: own, default_hp_metric: false}
  callbacks+:
    - class_path: users_package.OutputNorm
model:
  class_path: FlowModule
  init_args:
    network: {class_path: users_package.Typed, init_args: {width: 5}}
    loss: {class_path: users_package.LogCosh}
    alpha: [0.1, 10.0]
    seeds: 2
    stop: {max_steps: 15}
data:
  class_path: TableFile
  init_args: {path: houses.csv, targets: [price, rent], labels: regression, n_train: 30, n_test: 10}
"""
FIT = ["fit", "--config", "own.yaml"]
UNSEEN = [*FIT, "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--model.stop.max_steps=1"]


@pytest.fixture(autouse=True)
def package(own_folder: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("package")
    (folder / "users_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 5)), columns=["area", "rooms", "age", "price", "rent"])
    table.to_csv("houses.csv", index=False)
    Path("own.yaml").write_text(CONFIGURATION)


def test_a_users_package_by_configuration_and_by_script(tmp_path: Path) -> None:
    assert main(FIT) == 0
    by_configuration = load_runs("runs").sort_values(["alpha", "seed"])
    own = importlib.import_module("users_package")
    by_script = members_at_the_end(
        FlowModule(
            functools.partial(own.Typed, width=5),
            loss=own.LogCosh(),
            alpha=[0.1, 10.0],
            seeds=2,
            stop=StoppingCriteria(max_steps=15),
        ),
        TableFile("houses.csv", ["price", "rent"], labels="regression", n_train=30, n_test=10),
        tmp_path / "script",
        [own.OutputNorm()],
    )
    by_script = by_script.sort_values(["alpha", "seed"])
    for column in ("train/loss", "test/loss", "own/moved"):
        ours, theirs = by_configuration[column].to_numpy(), by_script[column].to_numpy()
        assert np.array_equal(ours, theirs)
        assert (ours > 0).all()
    config = Path(by_configuration["path"].iloc[0]) / "config.yaml"
    assert main(["fit", "--config", str(config), *UNSEEN[3:]]) == 0  # as it was stored


def test_the_console_script_imports_from_the_working_folder(tmp_path: Path) -> None:
    """Its import path begins with the folder of the script, where that of ``-m`` begins with the working folder."""
    script = tmp_path / "bin" / "lazy-lightning"
    script.parent.mkdir()
    script.write_text("import sys; from lazy_lightning.cli import main; sys.exit(main())")
    Path("users_package.py").write_text(PACKAGE)
    command = [sys.executable, str(script), *FIT, "--print_config"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "users_package.OutputNorm" in done.stdout


@pytest.mark.parametrize(
    "network",
    [
        *("PassesOn", "WithDefaults", "PassesOnDefaults", "Classes", "function"),
        *(
            f"{{class_path: users_package.{name}, init_args: {{width: 3}}}}"
            for name in ("Classes", "function", "passes_on")
        ),
        "{class_path: lazy_lightning.nn.Symmetrized, init_args: {network: {class_path: users_package.Typed}}}",
    ],
)
def test_the_shapes_of_the_data_are_not_asked_for(network: str) -> None:
    name = network if network.startswith("{") else f"users_package.{network}"
    if name.endswith("function"):  # by its name alone, so without the configuration's init_args
        Path("own.yaml").write_text(
            CONFIGURATION.replace("{class_path: users_package.Typed, init_args: {width: 5}}", name)
        )
        assert main(UNSEEN) == 0
    assert main([*UNSEEN, f"--model.network={name}"]) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["Typed", "--model.network.num_outputs=2"], "num_outputs is 2, but the data determine it: leave it out"),
        (["Classes", "--model.network.num_classes=2"], "network.num_classes is 2, but the data determine it"),
        (["PassesOnDefaults", "--model.network.num_outputs=2"], "network.num_outputs is 2, but the data determine it"),
        (["Needs"], "model.network needs depth: for example --model.network.depth VALUE"),
        (["Typed", "--model.network.wdth=2"], "unknown key model.network.wdth: did you mean width"),
    ],
)
def test_what_the_data_decide_is_refused(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*UNSEEN, f"--model.network=users_package.{options[0]}", *options[1:]]
    assert sentence in error_of(arguments, capsys)
