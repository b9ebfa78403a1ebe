"""Losses at the end and at best against the scale of initialisation, and plain gradient descent from it."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from made_runs import made_sweep
from observed import watch

from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.best_in_training import best_in_training, initial_scale
from lazy_lightning.flow import ConstantStep
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import TwoLayer
from lazy_lightning.runs import load_runs

SCALES = (0.1, 1.0, 10.0)
END = 0.3
STUDENT = {"model.network": "TwoLayer", "model.network.activation": "relu", "model.network.scaling": "sqrt"}


def made(folder, widths=(100,), **options) -> pd.DataFrame:
    """A population loss of 0.3 at the end, and of alpha (1 + seed)/100 at the fifth observation."""
    made_sweep(folder, widths, SCALES, seeds=2, arrays=False, population__loss=END, **options)
    for path in folder.rglob("curves.parquet"):
        curves = pd.read_parquet(path)
        fifth = curves["observation"] == 5
        curves.loc[fifth, "population/loss"] = curves["alpha"][fifth] * (1 + curves["seed"][fifth]) / 100
        curves.to_parquet(path)
    return load_runs(folder)


def test_the_best_is_the_least_of_each_member(tmp_path):
    drawn = best_in_training(made(tmp_path))
    table = drawn.table[drawn.table["quantity"] == "population/loss"].set_index("at")
    alphas = np.array(SCALES) / 10
    assert_close(table.loc["best", "mean"].to_numpy(copy=True), 1.5 * alphas / 100, rtol=1e-9)
    assert_close(table.loc["end", "mean"].to_numpy(copy=True), np.full(3, END), rtol=1e-12)
    assert set(drawn.table["seeds"]) == {2}
    assert drawn.findings["population loss at best during training, h = 100"].startswith("0.00015 ± ")
    assert "Means of 2 seeds (bands: standard error over seeds of the weights" in drawn.caption
    assert "ended at a limit" not in drawn.caption
    limited = best_in_training(made(tmp_path / "again").assign(reason="max_steps"))
    assert "6 of 6 networks ended at a limit on time or steps." in limited.caption
    drawn.figure.draw_without_rendering()


@pytest.mark.parametrize("widths", [(100,), (30, 100)])
def test_two_layer_networks_of_one_width_have_an_axis_of_tau(tmp_path, widths):
    drawn = best_in_training(made(tmp_path, widths).assign(**STUDENT, **{"model.centering": False}))
    assert set(drawn.table["h"]) == set(widths)
    above = [child for axis in drawn.figure.axes for child in axis.child_axes]
    assert len(above) == (2 if len(widths) == 1 else 0)
    drawn.figure.draw_without_rendering()
    for axis in above:
        low, high = axis.get_xlim()
        assert (low, high) == pytest.approx(tuple((x / 10) ** 0.5 for x in axis._parent.get_xlim()))


def test_a_task_with_errors_needs_a_population_loss(tmp_path):
    runs = load_runs(made_sweep(tmp_path / "runs", (100,), SCALES, seeds=2, arrays=False))
    with pytest.raises(AnalysisError, match="add the observer PopulationLoss"):
        best_in_training(runs)
    regression = runs.drop(columns=[name for name in runs if name.endswith("test/error")])
    assert best_in_training(regression).title == "Test loss at the end and at best"
    with pytest.raises(AnalysisError, match="no finished network has the test loss in its curves"):
        best_in_training(regression.assign(path=float("nan")))


def test_networks_that_are_not_homogeneous_have_no_tau():
    def scale(**changed):
        return initial_scale(2.0, 4.0, pd.Series(STUDENT | {"model.centering": False} | changed))

    assert scale() == pytest.approx(1.0)
    assert scale(**{"model.network.scaling": "mean", "model.network.tau": 3.0}) == pytest.approx(3 / 2**0.5)
    assert scale(**{"model.network": "FC"}) is None
    assert scale(**{"model.network.activation": "tanh"}) is None
    assert scale(**{"model.centering": True}) is None
    assert scale(**{"model.centering": True, "model.network.symmetric": True}) == pytest.approx(1.0)


@pytest.mark.parametrize("scaling", ["sqrt", "mean"])
def test_alpha_is_the_initial_scale_of_a_sum_over_neurons(tmp_path, scaling):
    """Gradient descent on sum_j b_j relu(a_j . x) from weights of scale tau, by steps dt s/alpha, gives the same F."""
    alphas, m, dt, steps = [0.2, 30.0], 6, 0.3, 40
    model = FlowModule(
        functools.partial(TwoLayer, width=m, scaling=scaling, signed=False, symmetric=True), loss="mse", alpha=alphas,
        centering=False, controller=ConstantStep(), dt=dt, stop=StoppingCriteria(max_steps=steps),
    )  # fmt: skip
    run = watch(tmp_path, model=model, data=TeacherStudent(d=4, n_train=12, n_test=5)).module
    x, y, _ = run.data.train
    row = pd.Series({**STUDENT, "model.network.scaling": scaling, "model.centering": False})
    for e, alpha in enumerate(alphas):
        tau = float(initial_scale(alpha, m, row))
        w = [tau * part for part in (run.w0[e, : 4 * m].view(m, 4), run.w0[e, 4 * m :])]
        for _ in range(steps):
            a, b = (part.detach().requires_grad_() for part in w)
            ((a @ x.T).relu().T @ b - y).square().mean().div(2).backward()
            w = [part - dt * tau**2 / alpha**2 * part.grad for part in (a, b)]
        assert_close(run.train_outputs[e], (w[0] @ x.T).relu().T.detach() @ w[1].detach(), rtol=1e-9)
