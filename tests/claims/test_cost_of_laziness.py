"""Deep networks on real images, and neurons that find a teacher's: what lazy training costs, or does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lazy_lightning import load_runs
from lazy_lightning.analysis import mean_and_error
from lazy_lightning.cli import main

pytestmark = pytest.mark.slow

CIFAR = "cifar10_2k.npz"


def trained(folder: Path, config: str, *options: str) -> pd.DataFrame:
    """The members of one fit."""
    where = ["--trainer.logger.save_dir", str(folder), "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config", config, *where, *options]) == 0
    return load_runs(folder)


def paired(runs: pd.DataFrame, lazy: float, feature: float) -> tuple[float, float]:
    """Mean over seeds of the lazy test error minus the other one of the same start, and its standard error."""
    table = runs.pivot(index="seed", columns="alpha", values="test/error")
    mean, error = mean_and_error([table[lazy] - table[feature]])
    return float(mean[0]), float(error[0])


# ---------------------------------------------------------------------- arXiv:1906.08034


def test_convolutional_networks_lose_when_lazy(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    rates = ["--model.search=null", "--model.alpha=[0.1, 100.0]", "--model.learning_rates=[0.03, 1.0]"]
    runs = trained(tmp_path, "cifar_cnn_minibatch.yaml", *rates, f"--data.files={real_file(CIFAR)}")
    loss, error = paired(runs, 100.0, 0.1)
    print(f"CNN: lazy minus feature {100 * loss:.2f} +- {100 * error:.2f} %")
    assert loss > max(0.01, 2 * error)


def test_fully_connected_networks_do_not(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    network = ["--model.network=FC", "--model.network.width=100", "--model.network.depth=3"]
    rates = ["--model.search=null", "--model.alpha=[0.1, 100.0]", "--model.learning_rates=[0.1, 0.3]"]
    options = [*network, "--model.network.activation=swish", *rates, f"--data.files={real_file(CIFAR)}"]
    loss, error = paired(trained(tmp_path, "cifar_cnn_minibatch.yaml", *options), 100.0, 0.1)
    print(f"FC: lazy minus feature {100 * loss:.2f} +- {100 * error:.2f} %")
    assert loss < error


# ---------------------------------------------------------------------- arXiv:1812.07956


def test_a_vgg_degrades_towards_its_linearisation(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    options = ["--config", "overlays/cifar_vgg_small.yaml", f"--data.files={real_file(CIFAR)}"]
    rates = ["--model.search=null", "--model.alpha=[1.0, 10.0, 1000.0]", "--model.learning_rates=[0.1, 1.0, 0.1]"]
    runs = trained(tmp_path, "cifar_vgg.yaml", *options, *rates).set_index("alpha")
    print(runs[["train/error", "test/error", "linearized/test/error", "activation_stability/total"]])
    for part in ("train/error", "test/error"):
        assert runs.loc[1000.0, part] > runs.loc[1.0, part] + 0.05
    assert runs.loc[1000.0, "test/error"] == pytest.approx(runs.loc[1000.0, "linearized/test/error"], abs=0.03)
    stable = runs["activation_stability/total"]
    assert stable[1.0] < 0.7 < 0.99 < stable[1000.0]


def test_few_neurons_or_small_scale_find_the_teacher(tmp_path: Path) -> None:
    """A student of eight does at either scaling; of 128 neurons the 1/m one does better by far."""
    small = ["--config", "teacher_student.yaml", "--config", "overlays/teacher_student_small.yaml"]
    for scale in ("alpha", "sqrt_h_alpha"):
        grid = {"model.network.width": [8, 128], scale: [0.08], "seeds": 3}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"name": scale, "grid": grid}))
        given = ["--sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "runs" / scale)]
        assert main(["sweep", *small, *given, "--workers", "0"]) == 0
    root, mean = (
        load_runs(tmp_path / "runs" / scale).groupby("h")["population/loss"].mean()
        for scale in ("alpha", "sqrt_h_alpha")
    )
    print("population loss, 1/sqrt(m):", root.to_dict(), "1/m:", mean.to_dict())
    assert root[8] < 0.1 * root[128]
    assert mean[8] < 0.3 * mean[128]
    assert mean[128] < 0.3 * root[128]
