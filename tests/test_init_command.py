"""``lazy-lightning init``: the configuration that it writes for a user's data is complete and can be trained."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import CONF, built, error_of

from lazy_lightning.cli import main

SHORT = ["--config", str(CONF / "no_figures.yaml"), "--model.stop.max_steps=20", "--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, *shape))


def written(path: str, *more: str) -> dict:
    assert main(["init", "--data", path, *more]) == 0
    return yaml.safe_load(Path(path).with_suffix(".yaml").read_text())


def test_two_classes_are_signs_and_the_configuration_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    x = drawn(60, 5)
    np.savez("my.npz", x=x, y=(x[:, 0] > 0).astype(int) + 3)
    config = written("my.npz")
    assert "fit --config my.yaml" in capsys.readouterr().out
    assert config["data"]["init_args"]["labels"] == {3: -1, 4: 1}
    assert config["model"]["init_args"]["loss"] == "softhinge(20)"
    assert main(["fit", "--config", "my.yaml", *SHORT]) == 0
    assert Path("runs/my/version_0/summary.json").is_file()


def test_every_key_of_model_and_data_has_a_comment() -> None:
    np.savez("my.npz", x=drawn(30, 4), y=np.arange(30) % 3)
    written("my.npz")
    lines = Path("my.yaml").read_text().splitlines()
    for before, line in pairwise(lines):
        if line.startswith("    ") and ":" in line and "class_path: pytorch" not in line:
            assert "# " in line or before.strip().startswith("#") or "optimizer" in line, line


def test_the_integrator_is_chosen_by_the_size_of_the_kernel() -> None:
    """A stiff flow takes thousands of Euler steps where ``auto`` takes some hundred."""
    np.savez("few.npz", x=drawn(100, 4), y=np.arange(100) % 2)
    assert written("few.npz")["model"]["init_args"]["integrator"] == "auto"
    np.savez("many.npz", x=drawn(1000, 4), y=np.arange(1000) % 4)  # 800 samples of four outputs
    assert written("many.npz")["model"]["init_args"]["integrator"] == "euler"


def test_a_rare_class_is_in_both_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("rare.npz", x=drawn(200, 4), y=np.array([0] * 150 + [1] * 47 + [2] * 3))
    config = written("rare.npz")
    data = config["data"]["init_args"]
    assert (data["labels"], data["n_test"], config["model"]["init_args"]["loss"]) == ("multiclass", 3, "cross_entropy")
    module = built(["fit", "--config", "rare.yaml"], monkeypatch).datamodule
    module.setup()
    assert set(module.train.y.tolist()) == set(module.test.y.tolist()) == {0, 1, 2}


def test_table_with_named_classes_and_a_constant_column(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"a": drawn(40), "b": 1.0, "kind": ["yes", "no: never"] * 20})
    table.to_csv("table.csv", index=False)
    data = written("table.csv")["data"]
    assert data["class_path"].endswith("TableFile")
    assert data["init_args"]["targets"] == ["kind"]
    assert data["init_args"]["labels"] == {"no: never": -1, "yes": 1}
    assert data["init_args"]["standardise"] is False
    built(["fit", "--config", "table.yaml"], monkeypatch).datamodule.setup()


def test_real_targets_are_a_regression_on_mini_batches_or_by_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("real.npz", x=drawn(50, 3), y=drawn(50, 2))
    config = written("real.npz", "--batch_size", "10")
    assert (config["model"]["init_args"]["loss"], config["data"]["init_args"]["labels"]) == ("mse", "regression")
    cli = built(["fit", "--config", "real.yaml"], monkeypatch)
    assert (type(cli.model).__name__, cli.datamodule.batch_size) == ("MiniBatchModule", 10)


def test_whole_numbers_that_differ_are_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"area": drawn(30), "price": np.arange(30) ** 2}).to_csv("houses.csv", index=False)
    assert written("houses.csv")["data"]["init_args"]["labels"] == "regression"
    built(["fit", "--config", "houses.yaml"], monkeypatch).datamodule.setup()


def test_images_can_have_a_convolutional_network(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 3, 16, 16), dtype=np.uint8)
    np.savez("images.npz", x=images, y=np.arange(24) % 2)
    written("images.npz", "--network", "cnn")
    cli = built(["fit", "--config", "images.yaml"], monkeypatch)
    cli.datamodule.setup()
    assert cli.datamodule.input_shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--data"),
        (["--data", "none.npz"], "there is no file none.npz"),
        (["--data", "one.npz"], "one sample of class 1"),
        (["--data", "one.npz", "--targets", "y"], "is not a .csv or .parquet file"),
        (["--data", "equal.npz"], "all targets in equal.npz are equal"),
        (["--data", "flat.npz", "--network", "cnn"], "needs images"),
        (["--data", "flat.npz", "--output", "nowhere/my.yaml"], "there is no folder nowhere"),
        (["--data", "flat.npz", "--output", "flat.npz"], "flat.npz exists already"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("one.npz", x=drawn(9, 2), y=np.array([0] * 8 + [1]))
    np.savez("equal.npz", x=drawn(9, 2), y=np.ones(9))
    np.savez("flat.npz", x=drawn(9, 2), y=np.arange(9) % 2)
    assert said in error_of(["init", *arguments], capsys)
    assert not list(Path().glob("*.yaml"))
