"""The experiments on convolutional networks, made short, on real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lazy_lightning.cli import main
from lazy_lightning.runs import load_runs

pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

CIFAR = "cifar10_2k.npz"
MNIST_IMAGES = "t10k-images-idx3-ubyte.gz"
COMMON = ["--data.download=false", "--trainer.enable_progress_bar=false", "--trainer.logger.save_dir=runs"]
SHORT = ["--data.n_train=100", "--model.network.width=8", "--model.stop.max_steps=180", "--model.alpha=[0.3, 30.0]"]


def curves(name: str, files: Path, *options: str) -> pd.DataFrame:
    """Of a short run of an experiment and its overlay for two cores."""
    given = ["--config", name, "--config", f"overlays/{name.replace('.yaml', '_small.yaml')}", *COMMON, *options]
    assert main(["fit", *given, f"--data.files={files}"]) == 0
    return load_runs("runs").curves.load()


def at(table: pd.DataFrame, end: str, column: str) -> pd.Series:
    by_member = table.sort_values("observation").groupby("member")[column]
    return by_member.first() if end == "start" else by_member.last()


def test_the_flow_of_a_cnn_on_cifar(real_file: Callable[[str], Path]) -> None:
    """Both regimes learn, at their own pace, and only the feature-learning members move their weights."""
    table = curves("cifar_cnn.yaml", real_file(CIFAR), *SHORT, "--data.n_test=200", "--model.chunk_size=64")
    assert (at(table, "end", "train/loss") < 0.99 * at(table, "start", "train/loss")).all()
    moved = at(table, "end", "displacement/total").groupby(at(table, "end", "alpha")).mean()
    assert moved[0.3] > 5 * moved[30.0]


def test_the_flow_of_a_cnn_on_mnist(real_file: Callable[[str], Path]) -> None:
    files = real_file(MNIST_IMAGES).parent
    table = curves("fashion_cnn.yaml", files, "--data=MNIST", *SHORT, "--data.n_test=500", "--data.pool=all")
    assert (at(table, "end", "test/error") < 0.42).all()


def test_mini_batches_of_a_vgg_on_cifar(real_file: Callable[[str], Path]) -> None:
    """The lazy network stays at its linearisation, its activations as they were; the other leaves both."""
    options = ["--data.n_train=200", "--data.n_test=100", "--model.network.widening=0.06", "--trainer.max_epochs=3"]
    rates = ["--model.search=null", "--model.learning_rates=[0.05, 0.05]", "--model.alpha=[1.0, 1000.0]"]
    table = curves("cifar_vgg.yaml", real_file(CIFAR), *options, *rates)
    stable = {a: at(table[table["alpha"] == a], "end", "activation_stability/total").iloc[0] for a in (1.0, 1000.0)}
    assert stable[1000.0] > 0.999 > 0.98 > stable[1.0]
    apart = {a: at(table[table["alpha"] == a], "end", "linearized/distance").iloc[0] for a in (1.0, 1000.0)}
    assert apart[1000.0] < 0.1 * apart[1.0]
    assert (at(table, "end", "train/loss") < at(table, "start", "train/loss")).all()
