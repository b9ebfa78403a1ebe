"""Weight decay to zero and to the start, in flow and mini-batch training, against closed forms of a linear model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from closeness import assert_close
from pytorch_lightning import Trainer
from torch import Tensor, nn

from lazy_lightning.data import HermiteRegression
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.modules.learning_rates import LearningRateSearch
from lazy_lightning.runs.configuration import family

ALPHAS = [0.5, 2.0]
RATE = 0.3


class Linear(nn.Module):
    """f(w, x) = w . x, whose gradient is x whatever w is."""

    def __init__(self, *, input_shape: tuple[int, ...] = (4,)) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def data(**options) -> HermiteRegression:
    return HermiteRegression(d=4, n_train=6, n_test=5, **options)


def trained(module, folder: Path, train: HermiteRegression, **options):
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, precision="64-true", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=train)
    return module


def forces(train: HermiteRegression, alpha: float, start: Tensor, to: str) -> tuple[Tensor, Tensor]:
    """A and b in grad = A dw - b, of L = norm(alpha X dw - y)^2/(2 alpha^2 n) + RATE/2 norm(w - c)^2."""
    x, y = train.train.x, train.train.y
    pull = torch.zeros_like(start) if to == "start" else start
    return x.T @ x / len(y) + RATE * torch.eye(4, dtype=x.dtype), x.T @ y / (alpha * len(y)) - RATE * pull


@pytest.mark.parametrize("to", ["zero", "start"])
def test_flow_with_weight_decay_is_the_matrix_exponential(tmp_path: Path, to: str) -> None:
    train, t = data(), 2.5
    module = FlowModule(
        Linear, loss="mse", alpha=ALPHAS, integrator="explicit", tol=1e-9, decay_rate=RATE, decay_to=to,
        stop=StoppingCriteria(t_max=t),
    )  # fmt: skip
    trained(module, tmp_path, train, max_epochs=-1)
    for alpha, w, w0 in zip(ALPHAS, module.w.detach(), module.w0, strict=True):
        a, b = forces(train, alpha, w0, to)
        end = torch.linalg.solve(a, b)
        assert_close(w - w0, end - torch.linalg.matrix_exp(-t * a) @ end, rtol=1e-6)


@pytest.mark.parametrize("to", ["zero", "start"])
def test_mini_batch_steps_with_weight_decay_are_those_of_the_linear_recursion(tmp_path: Path, to: str) -> None:
    train, lr, steps = data(batch_size=6), 0.2, 7
    module = MiniBatchModule(
        Linear, loss="mse", alpha=ALPHAS, decay_rate=RATE, decay_to=to,
        optimizer=lambda rows: torch.optim.SGD(rows, lr=lr),
    )  # fmt: skip
    trained(module, tmp_path, train, max_epochs=steps)
    for alpha, dw, w0 in zip(ALPHAS, module.displacement().detach(), module.w0, strict=True):
        a, b = forces(train, alpha, w0, to)
        expected = torch.zeros_like(w0)
        for _ in range(steps):
            expected = expected - lr * (a @ expected - b)
        assert_close(dw, expected, rtol=1e-12)


def test_search_for_rates_has_the_decay(tmp_path: Path) -> None:
    search = LearningRateSearch(candidates=(0.5, 1e-9), steps=4)
    module = MiniBatchModule(Linear, loss="mse", alpha=1.0, decay_rate=1e3, search=search)
    trained(module, tmp_path, data(batch_size=6), max_epochs=1)
    assert module.rates()["network"].tolist() == [1e-9]  # 0.5 x 1e3 > 2: it diverges


def test_weight_decay_out_of_range_is_refused() -> None:
    for options, sentence in (
        ({"decay_rate": -1.0}, "decay_rate is -1.0"),
        ({"decay_rate": float("nan")}, "decay_rate is nan"),
        ({"decay_to": "half"}, "decay_to is 'half'"),
        ({"decay_rate": 1.0, "integrator": "implicit"}, "integrator implicit"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            FlowModule(Linear, **options)
    with pytest.raises(ConfigError, match="frozen kernel"):
        KernelModule(Linear, decay_rate=0.1)


def test_no_weight_decay_leaves_the_identity_of_a_member() -> None:
    def identity(**options) -> str:
        arguments = {"loss": "mse", **options}
        return family(
            {"model": {"class_path": "lazy_lightning.modules.FlowModule", "init_args": arguments}, "data": {}}
        )

    assert identity(decay_rate=0.0, decay_to="zero") == identity()
    assert identity(decay_rate=0.1) != identity() != identity(decay_rate=0.1, decay_to="start")
    assert identity(decay_rate=0.1) != identity(decay_rate=0.1, decay_to="start")
