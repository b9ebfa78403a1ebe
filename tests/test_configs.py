"""Every configuration that is shipped can be parsed and built; those with data at hand are followed a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import CONF, built

from lazy_lightning import data
from lazy_lightning.cli import main
from lazy_lightning.cli.bundled import bundled_configs
from lazy_lightning.data import CIFAR10
from lazy_lightning.data.torchvision_data import TorchvisionData
from lazy_lightning.figures.noise_plane import temperatures
from lazy_lightning.modules import observers
from lazy_lightning.runs.load import load_runs

NAMES = sorted(bundled_configs())
EXPERIMENTS = [name for name in NAMES if not name.startswith(("callbacks/", "overlays/", "sweeps/"))]
LAYERS = [name for name in NAMES if name.startswith(("callbacks/", "overlays/"))]
SIZED = {
    layer: experiment
    for layer in LAYERS
    for experiment in EXPERIMENTS  # of two whose names begin this way, the longer one, which is the later one
    if Path(layer).name.startswith(f"{Path(experiment).stem}_")
}
"""Overlays that make one experiment smaller, which have its name and a suffix, and the experiment."""
LAYERS = [name for name in LAYERS if name not in SIZED]
QUIET = ["--config", str(CONF / "quiet.yaml")]
SMALL = ["--config", "overlays/tiny.yaml", "--model.stop.max_steps=8", *QUIET]
IMAGES = ["--data.n_train=12", "--data.n_test=10", "--model.seeds=1", *QUIET]
FEW_STEPS = [*IMAGES, "--model.stop.max_steps=2"]
BATCHES = ["--data.batch_size=6", "--data.pool=all", "--model.alpha=[1.0, 10.0]", "--model.search.steps=1"]
OF_ITS_OWN = {
    "population_sgd.yaml": [*IMAGES, "--data.batch_size=6", "--trainer.max_epochs=1"],
    "kernel_spectra.yaml": [*IMAGES, "--model.network.widening=0.03"],
    "noise_plane_fc.yaml": [*IMAGES, "--data.batch_size=6", "--trainer.max_epochs=1"],
    "coordinate_check.yaml": [*IMAGES, "--data.batch_size=6", "--trainer.max_steps=2"],
    "digits_minibatch.yaml": [*IMAGES, "--data.batch_size=6", "--model.search.steps=1", "--trainer.max_epochs=1"],
    "cifar_cnn.yaml": [*FEW_STEPS, "--model.network.width=3"],
    "fashion_cnn.yaml": [*FEW_STEPS, "--model.network.width=3"],
    "cifar_wideresnet.yaml": [*FEW_STEPS, "--model.network.depth=10", "--model.network.widening=0.1"],
    "cifar_vgg.yaml": [*IMAGES, *BATCHES, "--trainer.max_epochs=1", "--model.network.widening=0.03"],
    "cifar_cnn_minibatch.yaml": [*IMAGES, *BATCHES, "--trainer.max_epochs=1", "--model.network.width=3"],
    "cifar_resnet.yaml": [*IMAGES, *BATCHES, "--trainer.max_epochs=1", "--model.network.widening=0.03"],
}
"""How an experiment is made tiny for which overlays/tiny.yaml is not meant."""
CONVOLUTIONAL = [name for name in OF_ITS_OWN if name.startswith(("cifar_", "fashion_", "kernel_spectra"))]
"""Their kernels and linearisations take half a minute each."""
SHARED_DATA = ["--model.data_seeds=null", "--model.data_seed_keys=null"]
"""Observers of kernels need samples that all members share."""
EVERY_OBSERVER = [
    "callbacks/full.yaml",
    "callbacks/sharpness.yaml",
    "callbacks/evolution.yaml",
    "callbacks/stability.yaml",
    "callbacks/neurons.yaml",
]
"""Presets that hold, together, each observer of all presets."""
PRESETS = [name for name in NAMES if name.startswith("callbacks/")]

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:  # the folder stays
        cli = built(["fit", "--config", name], patch)
    assert f"name: {Path(name).stem}," in bundled_configs()[name].read_text()  # its runs lie in a folder of its name
    options = [] if not isinstance(cli.datamodule, TorchvisionData) else ["--data.files", images(type(cli.datamodule))]
    assert main(["fit", "--config", name, *OF_ITS_OWN.get(name, SMALL), *options]) == 0
    assert "alpha" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_temperature_of_the_noise_plane_is_its_rate_over_its_batch() -> None:
    tiny = ["--data.n_train=12", "--data.n_test=10", "--data.batch_size=6", "--model.seeds=1", "--trainer.max_epochs=1"]
    assert main(["fit", "--config", "noise_plane_fc.yaml", *tiny]) == 0
    runs = load_runs(Path("runs"))
    assert temperatures(runs).unique().tolist() == [0.3 / 6]


def preset_fits(name: str, presets: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What observers report of two steps of a tiny experiment with these presets."""
    failures: list[str] = []
    monkeypatch.setattr(
        observers, "report_failure", lambda observer, action, error, _: failures.append(f"{observer} {action}: {error}")
    )
    kind = getattr(data, yaml.safe_load(bundled_configs()[name].read_text())["data"]["class_path"].rpartition(".")[2])
    options = ["--data.files", images(kind)] if issubclass(kind, TorchvisionData) else []
    layers = [part for preset in presets for part in ("--config", preset)]
    tiny = OF_ITS_OWN.get(name, ["--config", "overlays/tiny.yaml", *FEW_STEPS])
    if "data_seeds" in bundled_configs()[name].read_text():
        tiny = [*tiny, *SHARED_DATA]
    assert main(["fit", "--config", name, *layers, *tiny, *options]) == 0
    return failures


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in CONVOLUTIONAL else name for name in EXPERIMENTS]
)
def test_all_presets_on_an_experiment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset_fits(name, EVERY_OBSERVER, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.usefixtures("no_figures")
def test_preset_on_an_experiment(name: str, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset_fits(name, [preset], monkeypatch) == []


def test_every_preset_is_among_those_of_every_observer() -> None:
    together = set().union(*map(classes_of, EVERY_OBSERVER))
    assert set().union(*map(classes_of, PRESETS)) == together


def classes_of(preset: str) -> set[str]:
    content = yaml.safe_load(bundled_configs()[preset].read_text())
    return {callback["class_path"] for callback in content["trainer"]["callbacks+"]}


def images(kind: type[TorchvisionData]) -> str:
    rng = np.random.default_rng(0)
    shape = (90, 3, 32, 32) if issubclass(kind, CIFAR10) else (90, 1, 28, 28)
    np.savez("images.npz", x=rng.integers(0, 256, shape, dtype=np.uint8), y=np.arange(90) % 10)
    return "images.npz"


@pytest.mark.parametrize(("name", "base"), SIZED.items())
def test_experiments_of_other_sizes(name: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = built(["fit", "--config", base, "--config", name], monkeypatch)
    assert cli.datamodule.n_train <= built(["fit", "--config", base], monkeypatch).datamodule.n_train


@pytest.mark.parametrize("name", ["noise_plane_fc.yaml", "population_sgd.yaml"])
def test_plain_sgd_has_no_momentum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration's SGD keeps the momentum of the module's own default, unless it sets it."""
    optimizer = built(["fit", "--config", name], monkeypatch).config["fit"]["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert optimizer["init_args"]["momentum"] == 0.0


@pytest.mark.parametrize("name", LAYERS)
def test_layer_on_an_experiment(name: str) -> None:
    assert main(["fit", "--config", "digits_fc.yaml", "--config", name, *SMALL]) == 0


def test_download_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cli = built(["fit", "--config", "cifar_fc.yaml"], monkeypatch)
    assert cli.datamodule.download
