"""TLazy, against the dense kernel on the training set."""

import functools

import pytest
import torch
from closeness import assert_close
from observed import MEMBERS, Scaled, interrupted, last, small, watch

from lazy_lightning.callbacks import TLazy
from lazy_lightning.callbacks.t_lazy import label_time
from lazy_lightning.data import TeacherStudent
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.ntk.laziness import PowerMethod

NORM, LABELS = "t_lazy/norm", "t_lazy/labels"
EXACT = PowerMethod(tolerance=0.0, max_iterations=3000)
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=6)}


def dense(module):
    """n/lambda_max and n ‖u‖^2/(u^T Theta u), by the definitions."""
    split = module.train_split
    kernel = empirical_ntk(module.network, module.w0, split.x, method="jacobian", buffers=module.member_buffers())
    kernel = kernel.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
    F = torch.zeros(*kernel.shape[:1], len(split.y), module.data.num_outputs, dtype=kernel.dtype)
    if not module.centering.enabled:
        F = module.centering.alpha.view(-1, 1, 1) * module.network(module.w0, split.x, module.member_buffers())
    F = F.squeeze(-1).requires_grad_()
    (slope,) = torch.autograd.grad(module.loss.per_sample(F, split.y).sum(), F)
    u = slope.flatten(1).unsqueeze(2)
    form = (u.mT @ kernel @ u).flatten()
    n = len(split.y)
    return n / torch.linalg.eigvalsh(kernel)[:, -1], n * u.square().sum((1, 2)) / form


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (small(), {}),
        (small(), {"chunk_size": 7, "tau": 0.5}),
        (small(), {"centering": False}),
        (small(labels="multiclass"), {"loss": "cross_entropy"}),
        (small(labels="multiclass"), {"loss": "mse", "centering": False}),
        (TeacherStudent(d=4, n_train=9, n_test=3), {"loss": "mse"}),
    ],
    ids=["default", "chunks", "not centred", "classes", "classes, not centred", "real targets"],
)
def test_are_those_of_the_dense_kernel(tmp_path, data, options):
    run = watch(tmp_path, TLazy(EXACT), data=data, **{**SHORT, **options})
    norm, labels = dense(run.module)
    assert_close(last(run, NORM), norm, rtol=1e-9)
    assert_close(last(run, LABELS), labels, rtol=1e-11)
    assert (last(run, LABELS) > last(run, NORM)).all()  # no direction is faster than the fastest
    assert (run.table.groupby("member")[[NORM, LABELS]].nunique() == 1).all(axis=None)


def test_default_method_is_precise_enough(tmp_path):
    run = watch(tmp_path, TLazy(), **SHORT)
    assert_close(last(run, NORM), dense(run.module)[0], rtol=1e-3)


def test_do_not_depend_on_alpha(tmp_path):
    """To the digits that are left of g ~ 1/alpha."""
    run = watch(tmp_path, TLazy(), alpha=[1e-3, 1.0, 1e4], seeds=2, stop=StoppingCriteria(max_steps=2))
    for name, rtol in ((NORM, 0.0), (LABELS, 1e-12)):
        values = last(run, name).view(3, 2)
        assert_close(values, values[:1].expand(3, 2), rtol=rtol)
        assert values[0, 0] != values[0, 1]


def test_float32(tmp_path):
    single, double = (watch(tmp_path / p, TLazy(), precision=p, **SHORT) for p in ("32-true", "64-true"))
    for name in (NORM, LABELS):
        assert_close(last(single, name), last(double, name), rtol=1e-4)


def test_network_with_a_buffer(tmp_path):
    run = watch(tmp_path, TLazy(EXACT), model=FlowModule(Scaled, **SHORT))
    assert_close(last(run, NORM), dense(run.module)[0], rtol=1e-9)


def test_label_time_of_one_direction():
    """Theta = 4: grad L = -J u/(alpha n), so n ‖u‖^2/(u Theta u) = n/4."""
    u, alpha = torch.tensor([[0.5, 0.0]]), torch.tensor([3.0])
    assert_close(label_time(u, alpha, 2 * 0.5 / (2 * alpha)), torch.tensor([0.5]).double(), rtol=1e-6)


def test_resumed_run_keeps_them(tmp_path):
    whole = watch(tmp_path / "whole", TLazy(), **SHORT)
    second = interrupted(tmp_path, lambda: [TLazy()], 2, **SHORT)
    for name in (NORM, LABELS):
        assert second.table[name].tolist() == whole.table[name].tolist()


def test_added_to_a_resumed_run_it_does_not_know(tmp_path):
    observers = iter([[], [TLazy()]])
    run = interrupted(tmp_path, lambda: next(observers), 2, **SHORT)
    assert run.table[[NORM, LABELS]].isna().all(axis=None)


def test_without_a_network_there_is_nothing_to_measure(tmp_path):
    model = KernelModule(functools.partial(FC, width=6, depth=1), stop=StoppingCriteria(max_steps=2))
    assert NORM not in watch(tmp_path, TLazy(), model=model).table
