"""KernelEvolution in a run, against Jacobians by brute force and NumPy's linear algebra."""

import functools
import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves
from observed import APART, MEMBERS, Poison, Scaled, Seen, interrupted, last, small, watch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.func import jacrev, jvp

from lazy_lightning.callbacks import Curves, KernelEvolution
from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import FlowModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

START = "kernel_evolution/"
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}


def kernel(module, row, w, x, x2=None):
    """(n c, m c) as J J^T, by reverse mode through the member's whole network."""
    buffers = {name: b[row : row + 1] for name, b in module.member_buffers().items()}

    def jacobian(x):
        return jacrev(lambda v: module.network(v[None], x, buffers)[0].flatten())(w)

    return jacobian(x) @ jacobian(x if x2 is None else x2).T


def own(samples, row):
    return samples if isinstance(samples, torch.Tensor) else samples.by_member[row]


def centred(K):
    return K - K.mean(0) - K.mean(1, keepdims=True) + K.mean()


def cosine(A, B):
    return (A * B).sum() / math.sqrt((A * A).sum() * (B * B).sum())


def expected(module, row, w, samples=None, ridge=0.0):
    """The columns of one member by NumPy."""
    train, test, c = module.train_split, module.test_split, module.data.num_outputs
    x, y, x_test, y_test = (own(part, row) for part in (*train[:2], *test[:2]))
    x, y = x[:samples], y[:samples]
    now, start = (kernel(module, row, v, x).detach().numpy() for v in (w, module.w0[row]))
    cross = kernel(module, row, w, x_test, x).detach().numpy()
    one_hot = not y.is_floating_point()
    targets = np.eye(c)[y.numpy()] if one_hot else y.numpy()
    solution = np.linalg.solve(now + len(y) * ridge * np.eye(len(now)), targets.flatten())
    F = (cross @ solution).reshape(-1, c)
    wanted = np.eye(c)[y_test.numpy()] if one_hot else y_test.numpy().reshape(-1, c)
    label_kernel = np.outer(targets.flatten(), targets.flatten())
    found = {
        "norm": np.linalg.norm(now),
        "alignment": cosine(centred(now), centred(start)),
        "label_alignment": cosine(centred(now), centred(label_kernel)),
        "test_loss": ((F - wanted) ** 2).sum(1).mean() / 2,
    }
    if module.task != "regression":
        wrong = F.argmax(1) != y_test.numpy() if one_hot else F[:, 0] * y_test.numpy() <= 0
        found["test_error"] = wrong.mean()
    return found


def velocity(module, row, w, gradient):
    """‖dTheta/dt‖/‖Theta‖ by forward mode through the Jacobians."""
    x = own(module.train_split.x, row)
    now, change = jvp(lambda v: kernel(module, row, v, x), (w,), (-gradient,))
    return change.norm() / now.norm()


CASES = {
    "labels": ({}, {}, 0.0),
    "not centred": ({}, {"centering": False}, 0.0),
    "classes": ({"labels": "multiclass"}, {"loss": "cross_entropy", "stop": StoppingCriteria(max_steps=6)}, 1e-3),
    "data seeds": ({}, {"seeds": 1, "data_seeds": [3, 4], "loss": "mse"}, 0.0),
}
"""Data, options, and the ridge: the kernel of ten outputs is singular, since the network has fewer weights."""


@pytest.mark.parametrize(("data", "options", "ridge"), CASES.values(), ids=CASES)
def test_columns_are_those_of_jacobians_and_numpy(tmp_path, data, options, ridge):
    seen = Seen()
    observer = KernelEvolution(t_factor=None, ridge=ridge)
    run = watch(tmp_path, seen, observer, data=small(**data), **{**SHORT, **options})
    for i in (0, len(seen.moments) // 2, len(seen.moments) - 1):
        table = run.table[run.table.observation == i]
        for row in range(len(run.module.w0)):
            for name, value in expected(run.module, row, seen.moments[i].w[row], ridge=ridge).items():
                assert table[START + name].iloc[row] == pytest.approx(value, rel=1e-8), (name, i, row)
    gradient = run.module.flow.flow_state.gradient
    speeds = [velocity(run.module, row, run.module.w.detach()[row], gradient[row]) for row in range(len(gradient))]
    assert_close(last(run, f"{START}velocity"), torch.stack(speeds), rtol=1e-6)


def test_momentum_moves_the_kernel_by_its_velocity(tmp_path):
    run = watch(tmp_path, KernelEvolution(), **SHORT, tau=0.5)
    v, w = run.module.flow.flow_state.velocity, run.module.w.detach()
    speeds = torch.stack([velocity(run.module, row, w[row], -v[row]) for row in range(len(w))])
    assert_close(last(run, f"{START}velocity"), speeds, rtol=1e-6)


def test_ridge_samples_real_targets_and_any_network(tmp_path):
    data = TeacherStudent(d=4, n_train=12, n_test=6)
    observer = KernelEvolution(samples=8, ridge=0.1)
    run = watch(tmp_path, observer, model=FlowModule(Scaled, loss="mse", **SHORT), data=data)
    assert f"{START}test_error" not in run.table
    for row in range(4):
        for name, value in expected(run.module, row, run.module.w.detach()[row], 8, 0.1).items():
            assert run.last(START + name)[row] == pytest.approx(value, rel=1e-8)


def test_mean_kernel_of_classes_is_the_trace_over_their_number(tmp_path):
    options = {"loss": "cross_entropy", "stop": StoppingCriteria(max_steps=4)}
    run = watch(
        tmp_path, KernelEvolution(kernel_outputs="mean", ridge=1e-3), data=small(labels="multiclass"), **options
    )
    m, c = run.module, run.module.data.num_outputs
    full = kernel(m, 0, m.w.detach()[0], m.train_split.x).detach().view(20, c, 20, c)
    cross = kernel(m, 0, m.w.detach()[0], m.test_split.x, m.train_split.x).detach().view(12, c, 20, c)
    now, test = (torch.einsum("icjc->ij", K).numpy() / c for K in (full, cross))
    F = test @ np.linalg.solve(now + 20 * 1e-3 * np.eye(20), np.eye(c)[m.train_split.y.numpy()])
    assert run.last(f"{START}norm") == [pytest.approx(np.linalg.norm(now), rel=1e-10)]
    assert run.last(f"{START}test_error") == [(F.argmax(1) != m.test_split.y.numpy()).mean()]


def test_mini_batches_have_no_velocity(tmp_path):
    model = MiniBatchModule(functools.partial(FC, width=6, depth=1), loss="mse", alpha=[1.0, 1e6])
    curves = Curves()
    trainer = Trainer(
        accelerator="cpu", precision="64-true", max_steps=2, log_every_n_steps=1,
        callbacks=[KernelEvolution(t_factor=None), curves],
        logger=CSVLogger(tmp_path, name="", version=""), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=small(batch_size=10))
    table = curves.table(model)
    assert table[f"{START}velocity"].isna().all()
    for row in range(2):
        found = table[(table.member == row) & (table.observation == table.observation.max())]
        for name, value in expected(model, row, model.w.detach()[row]).items():
            assert found[START + name].tolist() == [pytest.approx(value, rel=1e-8)]


# ---------------------------------------------------------------------- when


def test_fractions_of_the_loss(tmp_path):
    fractions = [0.9, 0.7]
    table = watch(tmp_path, KernelEvolution(loss_fractions=fractions), **APART).table
    for _, member in table.groupby("member"):
        share, running = member["train/loss"] / member["train/loss"].iloc[0], member.reason == StopReason.RUNNING
        passed = sum((share <= f).astype(int) for f in fractions).to_numpy()
        wanted = [True, *(passed[1:] > np.maximum.accumulate(passed)[:-1])] | ~running.to_numpy()
        assert np.array_equal(member[f"{START}norm"].notna(), wanted)
        assert 3 <= member[f"{START}norm"].nunique() <= 4


EARLY = {"alpha": [0.04, 0.4], "seeds": 2, "network": {"width": 6, "depth": 2}, "stop": StoppingCriteria(loss=0.4)}


@pytest.mark.parametrize("rule", [{}, {"tau": 0.3}], ids=str)
@pytest.mark.parametrize("integrator", ["explicit", "auto"])
def test_long_steps_are_observed_within(tmp_path, integrator, rule):
    """No two observations of a member are further apart than those of short steps, and all are on the trajectory."""
    seen = Seen()
    run = watch(tmp_path, KernelEvolution(samples=5), seen, **EARLY, integrator=integrator, **rule)
    inside = run.table[run.table.duplicated(["member", "tried"]) & (run.table.reason == 0)]
    assert len(inside) > 4
    for _, member in run.table.groupby("member"):
        t = member.t[member.t > 0].unique()
        assert (np.diff(t) > 0).all()
        assert (t[1:] / t[:-1]).max() < 1.5**1.5 * (1 + 1e-9)
        assert member[f"{START}norm"].notna().sum() > 5
    m = run.module
    for moment in seen.moments:  # each observation is consistent in itself
        assert_close(m.objective.outputs_at(moment.w), moment.outputs, rtol=1e-9, scale=1.0)
    plain = watch(tmp_path / "plain", **EARLY, integrator=integrator, **rule)
    assert torch.equal(m.w, plain.module.w)
    assert len(plain.table) < len(run.table)


def test_observations_within_steps_resume_to_the_bit(tmp_path):
    options = {**EARLY, "integrator": "auto"}
    observers = lambda: [KernelEvolution(samples=5, loss_fractions=[0.99, 0.9, 0.7, 0.5])]  # noqa: E731
    whole = watch(tmp_path / "whole", *observers(), **options)
    assert_same_curves(interrupted(tmp_path, observers, 3, **options).table, whole.table)


@pytest.mark.parametrize("options", [{"t_factor": 3.0}, {"loss_fractions": [0.95, 0.8, 0.6]}], ids=str)
def test_resumed_run_has_the_undisturbed_table(tmp_path, options):
    observers = functools.partial(lambda: [KernelEvolution(**options)])
    whole = watch(tmp_path / "whole", *observers(), **APART)
    assert_same_curves(interrupted(tmp_path, observers, 7, **APART).table, whole.table)


def test_member_that_is_not_finite_costs_no_other_one(tmp_path):
    clean = watch(tmp_path / "a", KernelEvolution(t_factor=None), **SHORT).table
    table = watch(tmp_path / "b", Poison(), KernelEvolution(t_factor=None), **SHORT).table
    assert table[(table.member == 1) & (table.observation >= 3)].filter(like=START).isna().all(axis=None)
    np.testing.assert_array_equal(table[table.member != 1][f"{START}norm"], clean[clean.member != 1][f"{START}norm"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples >= 2, or null for all, got 1"),
        ({"t_factor": 1.0}, "KernelEvolution needs t_factor > 1"),
        ({"loss_fractions": [0.5, 2.0]}, "numbers between 0 and 1"),
        ({"kernel_outputs": "trace"}, "'trace', expected full or mean"),
        ({"ridge": -1.0}, "ridge is -1.0, expected a number >= 0"),
    ],
    ids=str,
)
def test_refused_when_configured(options, message):
    with pytest.raises(ConfigError, match=message):
        KernelEvolution(**options)
