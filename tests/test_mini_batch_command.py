"""Mini-batch training as a user meets it: fit, go on, evaluate, sweep, and what is refused in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import error_of

from lazy_lightning.cli import main
from lazy_lightning.runs import load_runs

pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

SMALL = [
    *("--data.n_train=60", "--data.n_test=40", "--data.batch_size=20", "--trainer.max_epochs=2"),
    *("--model.search.steps=2", "--model.network.width=10", "--model.alpha=[0.1,10.0]"),
    "--trainer.enable_progress_bar=false",
]
EXPERIMENT = ["--config", "digits_minibatch.yaml", *SMALL]


def run_of(folder: str) -> Path:
    return next(Path(folder).rglob("summary.json")).parent


def saved_in(folder: str) -> list[str]:
    return [f"--trainer.logger.save_dir={folder}"]


# ---------------------------------------------------------------------- fit


def test_fit_ends_with_what_each_model_has_come_to(capsys):
    assert main(["fit", *EXPERIMENT]) == 0
    shown = capsys.readouterr().out
    for word in ("learning rates of the linearized", "frozen", "stable", "results in", "alpha = 10"):
        assert word in shown
    summary = json.loads((run_of(".") / "summary.json").read_text())
    assert summary["model"] == "mini-batch training of the network beside linearized and frozen activations"
    mean = summary["groups"][0]["mean"]
    for name in ("test/error", "linearized/test/error", "frozen_activations/test/error", "activation_stability/total"):
        assert 0 <= mean[name] <= 1
    assert summary["members"][0]["tried"] == 6  # three batches an epoch


def test_more_epochs_go_on_where_it_stopped(capsys):
    """As if it had never been interrupted, with rates that are not sought again."""
    assert main(["fit", *EXPERIMENT, *saved_in("part")]) == 0
    capsys.readouterr()
    path = run_of("part")
    going_on = ["fit", "--config", f"{path}/config.yaml", "--ckpt_path", f"{path}/checkpoint.ckpt"]
    assert main([*going_on, "--trainer.max_epochs=4", *saved_in("rest")]) == 0
    assert "learning rates of" not in capsys.readouterr().out
    assert main(["fit", *EXPERIMENT, "--trainer.max_epochs=4", *saved_in("whole")]) == 0
    rest, whole = (load_runs(folder).sort_values(["alpha", "seed"]) for folder in ("rest", "whole"))
    for name in ("test/loss", "linearized/test/loss", "frozen_activations/train/loss", "displacement/total", "t"):
        assert rest[name].tolist() == whole[name].tolist()


def test_test_and_predict_from_a_checkpoint(capsys):
    assert main(["fit", *EXPERIMENT]) == 0
    path = run_of(".")
    of_run = ["--config", f"{path}/config.yaml", "--ckpt_path", f"{path}/checkpoint.ckpt"]
    capsys.readouterr()
    assert main(["test", *of_run]) == 0
    shown = capsys.readouterr().out
    for alpha, error in load_runs(str(path)).groupby("alpha")["test/error"].mean().items():
        told = re.search(rf"test/error/alpha={alpha:g}\s*│\s*([0-9.]+)", shown)
        assert float(told[1]) == pytest.approx(error, rel=1e-6)
    assert main(["predict", *of_run]) == 0


# ---------------------------------------------------------------------- sweep

BASE = """
trainer: {enable_progress_bar: false, max_epochs: 2}
model:
  class_path: lazy_lightning.modules.MiniBatchModule
  init_args:
    network: {class_path: lazy_lightning.nn.FC, init_args: {width: 8, depth: 2, activation: relu}}
    loss: softhinge(20)
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
    companions: [linearized]
data:
  class_path: lazy_lightning.data.Digits
  init_args: {n_train: 40, n_test: 30, pca: 4, batch_size: 10}
"""
GRID = "{grid: {model.network.width: [8, 12], alpha: [0.1, 10.0], seeds: 2}}"


def sweep(*options: str) -> int:
    Path("base.yaml").write_text(BASE)
    Path("mine.yaml").write_text(GRID)
    return main(["sweep", "--config", "base.yaml", "--sweep", "mine.yaml", "--out", "out", "--workers=0", *options])


def test_a_sweep_of_mini_batch_training(capsys):
    """Batches of one width; done once; other epochs are other results."""
    assert sweep("--dry_run") == 0
    assert "0 of 8 members are done" in capsys.readouterr().out
    assert sweep() == 0
    runs = load_runs("out")
    assert runs.groupby("h").size().to_dict() == {8: 4, 12: 4}
    assert (runs["status"] == "finished").all()
    assert set(runs["tried"]) == {8}
    assert set(runs["model"]) == {"network"}
    assert runs["linearized/test/error"].between(0, 1).all()
    capsys.readouterr()
    assert sweep("--dry_run") == 0
    assert "0 batches" in capsys.readouterr().out
    assert sweep("--dry_run", "--trainer.max_epochs=3") == 0
    assert "0 of 8 members are done" in capsys.readouterr().out


def test_a_member_of_a_sweep_is_that_of_a_run_alone():
    assert sweep() == 0
    Path("alone.yaml").write_text(BASE)
    options = ["--model.alpha=10.0", "--model.seeds=[1]", "--model.network.width=12", *saved_in("alone")]
    assert main(["fit", "--config", "alone.yaml", *options]) == 0
    alone, swept = load_runs("alone"), load_runs("out")
    same = swept[swept["id"].isin(alone["id"])]
    assert len(same) == 1
    for name in ("test/loss", "linearized/test/loss", "t"):  # a batch sums in another order
        np.testing.assert_allclose(alone[name], same[name], rtol=1e-10)


def test_frozen_kernels_are_of_flows(capsys):
    Path("base.yaml").write_text(BASE)
    Path("mine.yaml").write_text("{grid: {alpha: [0.1]}, kernels: [init]}")
    asked = ["sweep", "--config", "base.yaml", "--sweep", "mine.yaml", "--out", "out", "--workers=0"]
    message = error_of(asked, capsys)
    assert "kernels: ['init'] freezes the tangent kernel of a FlowModule" in message
    assert "model.companions: [linearized]" in message


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data.batch_size=null"], "MiniBatchModule trains on mini-batches: set data.batch_size, for example to 128"),
        (["--data.batch_size=0"], "batch_size must be at least 1, got 0"),
        (["--trainer.max_epochs=-1"], "nothing would stop this run: set --trainer.max_epochs"),
        (["--model.optimizer=torch.optim.Nope"], "the class torch.optim.Nope cannot be imported"),
        (["--model.optimizer=torch.optim.LBFGS"], "does not act entry by entry"),
        (["--model.optimizer.lr=-1"], "the optimizer refuses its arguments (Invalid learning rate: -1"),
        (["--model.lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"], "ReduceLROnPlateau looks at one loss"),
        (["--model.companions=[linearised]"], "expected a list out of linearized, frozen_activations or null"),
        (["--model.network=CNN"], "set fewer stages or layers, a smaller filter_size, or more padding"),
        (["--model.network=TorchvisionNetwork", "--model.network.name=nope"], "torchvision has no model 'nope'"),
        (["--model.search.steps=0"], "a trial needs steps >= 1, got 0"),
        (["--model.learning_rates=[0.1]"], "leave one of them out"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_refused(options, sentence, capsys):
    assert sentence in error_of(["fit", *EXPERIMENT, *options], capsys)


def test_augmentation_that_is_none(capsys):
    augment = {"data": {"init_args": {"augment": [{"class_path": "torchvision.transforms.v2.Nope"}]}}}
    Path("augment.yaml").write_text(yaml.safe_dump(augment))
    assert "torchvision.transforms.v2.Nope" in error_of(["fit", *EXPERIMENT, "--config", "augment.yaml"], capsys)


def test_a_flow_has_no_mini_batches_and_mini_batches_no_frozen_kernel(capsys):
    message = error_of(["fit", "--config", "digits_fc.yaml", "--data.batch_size=10"], capsys)
    assert re.search("data.batch_size is 10, but FlowModule follows the gradient of the whole training set", message)
    assert "kernel freezes the tangent kernel of a FlowModule" in error_of(["kernel", *EXPERIMENT], capsys)
