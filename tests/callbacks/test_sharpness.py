"""Sharpness in a run: the Hessian of the training loss by brute force, the limit of the steps, and what is refused."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import digits, fit, module
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger

from lazy_lightning.callbacks import Curves, RunCheckpoint, Sharpness
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
Observed = functools.partial(Sharpness, samples=20, products=60, vectors=2, t_factor=None)


def largest_eigenvalues(m, samples):
    """(E,) by the dense Hessian of L at the present weights."""
    x, y, alpha = m.train_split.x[:samples], m.train_split.y[:samples], m.centering.alpha

    def loss(row, e, all_rows):
        w = torch.cat([all_rows[:e], row[None], all_rows[e + 1 :]])
        F = alpha[e] * (m.network(w, x) - m.network(m.w0, x))[e, :, 0]
        return m.loss.per_sample(F, y).mean() / alpha[e] ** 2

    w = m.w.detach()
    hessians = [torch.autograd.functional.hessian(lambda v, e=e: loss(v, e, w), w[e]) for e in range(len(w))]
    return torch.stack([torch.linalg.eigvalsh(h)[-1] for h in hessians])


def flow_run(folder, observer, max_steps=12):
    model = module(network={"width": 4, "depth": 1}, **MEMBERS, stop=StoppingCriteria(max_steps=max_steps))
    return fit(folder, model, digits(pca=4), [observer])


def test_flow_has_the_largest_eigenvalue_of_the_hessian_beside_two_over_dt(tmp_path):
    fitted = flow_run(tmp_path, Observed())
    found = torch.tensor(fitted.last("sharpness/largest"), dtype=torch.float64)
    assert_close(found, largest_eigenvalues(fitted.module, 20), rtol=1e-8)
    np.testing.assert_allclose(fitted.table["sharpness/limit"], 2 / fitted.table.dt)
    assert (fitted.table["sharpness/smallest"] <= fitted.table["sharpness/largest"]).all()
    assert fitted.table["sharpness/trace_error"].notna().all()


def test_growth_of_t_decides_when_it_is_measured(tmp_path):
    table = flow_run(tmp_path, Observed(t_factor=float("inf")), 60).table
    there = table["sharpness/largest"].notna().groupby(table.observation).all()
    assert there.iloc[0]
    assert there.iloc[-1]
    assert not there.iloc[1:-1].all()


class Interrupt(Callback):
    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = True


def test_resumed_run_measures_what_the_whole_run_does(tmp_path):
    options = {**MEMBERS, "network": {"width": 4, "depth": 1}, "stop": StoppingCriteria(max_steps=12)}
    whole = fit(tmp_path / "whole", module(**options), digits(pca=4), [Observed(products=3)])
    fit(tmp_path / "a", module(**options), digits(pca=4), [Observed(products=3), Interrupt(), RunCheckpoint()])
    resumed = fit(
        tmp_path / "b",
        module(**options),
        digits(pca=4),
        [Observed(products=3)],
        ckpt_path=tmp_path / "a/checkpoint.ckpt",
    )
    assert resumed.last("sharpness/largest") == whole.last("sharpness/largest")


LIMITS = [
    ({"momentum": 0.0}, 2 / 0.05),
    ({"momentum": 0.9}, 2 * 1.9 / 0.05),
    ({"momentum": 0.9, "nesterov": True}, 2 * 1.9 / (2.8 * 0.05)),
    (None, float("nan")),
]


@pytest.mark.parametrize(("options", "limit"), LIMITS)
def test_mini_batches_have_the_limit_of_their_optimizer(options, limit, tmp_path):
    optimizer = torch.optim.Adam if options is None else functools.partial(torch.optim.SGD, **options)
    model = MiniBatchModule(
        functools.partial(FC, width=4, depth=1), loss="mse", optimizer=functools.partial(optimizer, lr=0.05), **MEMBERS
    )
    curves = Curves()
    trainer = Trainer(
        accelerator="cpu", precision="64-true", max_steps=2, log_every_n_steps=1, callbacks=[Observed(), curves],
        logger=CSVLogger(tmp_path, name="", version=""),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=digits(pca=4, batch_size=20))
    table = curves.table(model)
    np.testing.assert_allclose(table["sharpness/limit"], limit)
    last = table[table.observation == table.observation.max()]["sharpness/largest"].to_numpy().copy()
    assert_close(torch.from_numpy(last), largest_eigenvalues(model, 20), rtol=1e-8)


@pytest.mark.parametrize(("beta", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("side", [0.99, 1.01])
def test_limit_is_where_sgd_of_a_parabola_grows(beta, nesterov, side):
    """L = c w^2/2 with the curvature c just below and just above the limit."""
    lr = 0.1
    limit = 2 * (1 + beta) / ((1 + 2 * beta if nesterov else 1) * lr)
    w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    sgd = torch.optim.SGD([w], lr=lr, momentum=beta, nesterov=nesterov)
    for _ in range(3000):
        w.grad = side * limit * w.detach()
        sgd.step()
    assert (abs(float(w.detach())) > 1) == (side > 1)


@pytest.mark.parametrize("options", [{"samples": 0}, {"products": 1}, {"vectors": 1}, {"t_factor": 1.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=f"Sharpness needs {next(iter(options))}"):
        Sharpness(**options)
