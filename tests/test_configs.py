"""Every configuration that is shipped can be parsed and built; those with data at hand are followed a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import CONF, built

from lazy_lightning.bundled import bundled_configs
from lazy_lightning.cli import main
from lazy_lightning.data import CIFAR10
from lazy_lightning.data.torchvision_data import TorchvisionData

NAMES = sorted(bundled_configs())
EXPERIMENTS = [name for name in NAMES if not name.startswith(("callbacks/", "overlays/", "sweeps/"))]
LAYERS = [name for name in NAMES if name.startswith(("callbacks/", "overlays/"))]
SMALL = ["--config", "overlays/tiny.yaml", "--model.stop.max_steps=8", "--config", str(CONF / "quiet.yaml")]

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:  # the folder stays
        cli = built(["fit", "--config", name], patch)
    assert f"name: {Path(name).stem}," in bundled_configs()[name].read_text()  # its runs lie in a folder of its name
    options = [] if not isinstance(cli.datamodule, TorchvisionData) else ["--data.files", images(cli.datamodule)]
    assert main(["fit", "--config", name, *SMALL, *options]) == 0
    assert "alpha" in capsys.readouterr().out


def images(data: TorchvisionData) -> str:
    rng = np.random.default_rng(0)
    shape = (90, 3, 32, 32) if isinstance(data, CIFAR10) else (90, 1, 28, 28)
    np.savez("images.npz", x=rng.integers(0, 256, shape, dtype=np.uint8), y=np.arange(90) % 10)
    return "images.npz"


@pytest.mark.parametrize("name", LAYERS)
def test_layer_on_an_experiment(name: str) -> None:
    assert main(["fit", "--config", "digits_fc.yaml", "--config", name, *SMALL]) == 0


def test_download_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cli = built(["fit", "--config", "cifar_fc.yaml"], monkeypatch)
    assert cli.datamodule.download
