"""Configurations in the names of version 0.1.0 parse, and mean what they meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command_line import built

from lazy_lightning.flow import GradientChangeController
from lazy_lightning.flow.controllers import controller
from lazy_lightning.modules import MiniBatchModule
from lazy_lightning.runs import configuration

OLD = Path(__file__).parent / "data" / "runs_of_0_1_0"
MINI_BATCH = ["--config", "digits_minibatch.yaml"]
FLOW = ["--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml"]


@pytest.mark.parametrize("name", ["ScaledModule", "lazy_lightning.modules.ScaledModule", "MiniBatchModule"])
def test_the_mini_batch_module_by_its_names(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"model": {"class_path": name}}))
    cli = built(["fit", *MINI_BATCH, "--config", str(file)], monkeypatch)
    assert type(cli.model) is MiniBatchModule
    assert cli.config["fit"]["model"]["class_path"].endswith(".MiniBatchModule")


def test_the_mini_batch_module_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ["--data", "Digits", "--data.n_train=8", "--data.n_test=4", "--data.batch_size=8"]
    cli = built(["fit", "--model", "ScaledModule", "--model.network", "FC", *data], monkeypatch)
    assert type(cli.model) is MiniBatchModule


def test_the_preset_of_the_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"controller": "slides"}}}))
    cli = built(["fit", *FLOW, "--config", str(file)], monkeypatch)
    assert cli.config["fit"]["model"]["init_args"]["controller"] == "gradient_change"
    assert controller("gradient_change") == GradientChangeController(1e-2, 1e-4)
    with pytest.warns(DeprecationWarning, match="use 'gradient_change'"):
        assert controller("slides") == controller("gradient_change")


@pytest.mark.parametrize("name", ["flow", "scaled"])
def test_the_configuration_of_an_old_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same member after it has been read and written by the present version."""
    path = OLD / name / "config.yaml"
    cli = built(["fit", "--config", str(path)], monkeypatch)
    written = yaml.safe_load(cli._subcommand_parsers["fit"].dump(cli.config["fit"], skip_none=False))
    assert "ScaledModule" not in str(written["model"])
    old, new = (configuration.flatten(config) for config in (configuration.load_yaml(path), written))
    assert {key: new[key] for key in old if key in new and key != "data"} == {
        key: old[key] for key in old if key in new and key != "data"
    }
