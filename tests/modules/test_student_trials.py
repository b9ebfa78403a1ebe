"""The bundled experiments on the scale of initialisation: trials that redraw all, and SGD on new samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from closeness import assert_close
from command_line import CONF, built

from lazy_lightning.cli import main
from lazy_lightning.data import TeacherStudent
from lazy_lightning.runs import load_runs

pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

QUIET = ["--config", str(CONF / "quiet.yaml")]
NO_BAR = ["--trainer.enable_progress_bar=false"]
TRIALS = [
    *("--model.alpha=[0.1,10.0]", "--model.network.width=6", "--data.d=5", "--data.n_train=20", "--data.n_test=10"),
    "--trainer.precision=64-true",
]
MEASURED = ["t", "train/loss", "test/loss", "displacement/total"]
"""Not the population loss of flows: which new samples an observation draws depends on how many came before it."""


def fitted(folder: str, *arguments: str):
    assert main(["fit", *arguments, *TRIALS, *NO_BAR, f"--trainer.logger.save_dir={folder}"]) == 0
    return load_runs(Path(folder)).sort_values(["alpha", "seed"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("initial_scale.yaml", ["--model.stop.max_steps=120"]),
        ("population_sgd.yaml", ["--data.batch_size=6", "--trainer.max_epochs=2", "--model.learning_rates=[0.1,1.0]"]),
    ],
)
def test_a_trial_is_the_run_whose_weights_sample_and_teacher_have_its_number_as_seed(name, options):
    trials = fitted("trials", "--config", name, *options, "--model.seeds=3")
    assert trials["data.train_seed"].tolist() == trials["data.teacher_seed"].tolist() == trials["seed"].tolist()
    alone = fitted(
        "alone", "--config", name, *options, "--model.seeds=[2]", "--model.data_seeds=null",
        "--model.data_seed_keys=null", "--data.train_seed=2", "--data.teacher_seed=2",
    )  # fmt: skip
    third = trials[trials["seed"] == 2]
    assert third["id"].tolist() == alone["id"].tolist()
    for column in MEASURED:
        assert_close(third[column].to_numpy(copy=True), alone[column].to_numpy(copy=True), rtol=1e-9)
    assert trials["test/loss"].nunique() == 6


def test_population_sgd_is_descent_on_new_samples_of_the_members_own_teacher(monkeypatch):
    """Against torch's gradient of 1/(alpha^2 b) sum ell on samples drawn here, by the same rates."""
    small = [*TRIALS, "--model.seeds=2", "--data.batch_size=6", "--trainer.max_epochs=2"]
    rates = [0.1, 1.0]
    cli = built(
        ["fit", "--config", "population_sgd.yaml", *small, f"--model.learning_rates={rates}", *QUIET], monkeypatch
    )
    model, data = cli.model, cli.datamodule
    cli.trainer.fit(model, datamodule=data)
    for e, (alpha, seed) in enumerate(zip(model.ensemble.alphas, model.ensemble.seeds, strict=True)):
        w, rate = model.w0[e].clone(), rates[model.ensemble.alphas.index(alpha) // 2]
        own = TeacherStudent(5, 3, n_train=20, n_test=10, train_seed=seed, teacher_seed=seed, batch_size=6, online=True)
        own.setup()
        for epoch in range(2):
            for x, y in own.mini_batches().epoch(epoch):
                w.requires_grad_()
                F = alpha * (x @ w[:30].view(6, 5).T).relu() @ w[30:] / 6**0.5
                (gradient,) = torch.autograd.grad((F - y).square().mean() / (2 * alpha**2), w)
                w = w.detach() - rate * gradient
        assert_close(model.w[e], w, rtol=1e-10)
