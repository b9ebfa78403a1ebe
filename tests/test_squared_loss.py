"""The squared loss of one-hot targets on the bundled deep networks, against the objective of arXiv:1812.07956."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import assert_close
from command_line import CONF, built
from torch.nn.functional import mse_loss, one_hot

pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

ALPHAS, RATE, CLASSES = [0.5, 20.0], 0.01, 10
SMALL = [
    *("--config", str(CONF / "quiet.yaml"), "--data.files=images.npz", "--data.pool=all", "--data.augment=null"),
    *("--data.n_train=12", "--data.n_test=10", "--data.batch_size=12", "--trainer.max_steps=1", "--model.search=null"),
    *(f"--model.alpha={ALPHAS}", f"--model.optimizer.lr={RATE}", "--model.network.widening=0.03"),
    *("--model.lr_scheduler=null", "--trainer.precision=64-true"),
]


@pytest.mark.parametrize("name", ["cifar_vgg", "cifar_resnet"])
def test_a_step_is_that_of_the_papers_squared_loss(name, monkeypatch):
    """The mean over samples and classes of (f - f0 - y/alpha)^2, y one-hot and not centred, at the rate lr c/2."""
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8), y=np.arange(60) % CLASSES)
    overlay = ["--config", f"{name}.yaml", "--config", f"overlays/{name}_small.yaml"]
    cli = built(["fit", *overlay, "--config", "overlays/squared_loss.yaml", *SMALL], monkeypatch)
    model = cli.model
    cli.trainer.fit(model, datamodule=cli.datamodule)
    x, y, _ = cli.datamodule.train
    assert model.loss.name == "mse"
    assert y.dtype == torch.int64
    targets = one_hot(y, CLASSES).double()
    for e, alpha in enumerate(ALPHAS):
        w0 = model.w0[e : e + 1]
        w = w0.clone().requires_grad_()
        buffers = {name: b[e : e + 1] for name, b in model.member_buffers().items()}
        change = (model.network(w, x, buffers) - model.network(w0, x, buffers).detach())[0]
        (gradient,) = torch.autograd.grad(mse_loss(change, targets / alpha), w)
        assert_close(model.w[e] - w0[0], -RATE * CLASSES / 2 * gradient[0], rtol=1e-9)
        F = alpha * (model.network(model.w[e : e + 1], x, buffers) - model.network(w0, x, buffers))[0]
        ours = model.loss.per_sample(F.unsqueeze(0), y)[0]
        assert_close(ours, CLASSES / 2 * mse_loss(F, targets, reduction="none").mean(dim=1), rtol=1e-12)
        assert_close(ours.mean(), model.trainer.callback_metrics[f"train/loss/alpha={alpha:g}"].double(), rtol=1e-6)
