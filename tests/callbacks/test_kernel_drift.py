"""KernelDrift in a run, against dense kernels at the weights that were seen."""

import functools
import logging
import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves
from observed import APART, MEMBERS, Poison, Scaled, Seen, column, interrupted, last, prolonged, small, watch
from torch import nn

from lazy_lightning.callbacks import KernelDrift
from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk_by_layer
from lazy_lightning.ntk.alignment import kernel_alignment, label_alignment, relative_drift
from lazy_lightning.ntk.reference import KernelReference

TOTAL = "kernel_drift/total"
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}


def dense(module, w, x):
    """(E, n c, n c) by layer."""
    kernels = empirical_ntk_by_layer(module.network, w, x, method="jacobian", buffers=module.member_buffers())
    return {name: k.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2) for name, k in kernels.items()}


def expected(module, w, split, samples):
    x, y = split.x[:samples].to(module.w0.dtype), split.y[:samples]
    now, start = dense(module, w, x), dense(module, module.w0, x)
    columns = {f"kernel_drift/{name}": relative_drift(now[name], start[name]) for name in now}
    total, total_start = sum(now.values()), sum(start.values())
    targets = y if y.is_floating_point() else nn.functional.one_hot(y, module.data.num_outputs).flatten().double()
    return columns | {
        TOTAL: relative_drift(total, total_start),
        "kernel_alignment": kernel_alignment(total, total_start),
        "label_alignment": label_alignment(total, targets),
    }


class Measured:
    """Counts the members whose kernels are computed, start included, and what is held."""

    def __init__(self, monkeypatch):
        self.members = 0
        self.references = []
        compare = KernelReference.compare

        def counting(reference, model, members):
            self.members += model.members
            self.references.append(reference)
            return compare(reference, model, members)

        monkeypatch.setattr(KernelReference, "compare", counting)


# ---------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({}, {}),
        ({}, {"tau": 0.5, "centering": False}),
        ({"labels": "multiclass"}, {"loss": "cross_entropy", "stop": StoppingCriteria(max_steps=8)}),
    ],
    ids=["gradient flow", "momentum, not centred", "classes"],
)
def test_columns_are_those_of_the_weights_at_each_observation(tmp_path, data, options, hold):
    seen = Seen()
    drift = KernelDrift(t_factor=None, samples=5, hold=hold, tile=3)
    run = watch(tmp_path, seen, drift, data=small(**data), **{**SHORT, **options})
    assert len(seen.moments) > 5
    for i, moment in enumerate(seen.moments):
        for name, values in expected(run.module, moment.w, run.module.data.test, 5).items():
            assert_close(column(run.table, name, i), values, rtol=1e-12, scale=1.0)
    assert_close(column(run.table, TOTAL, 0), torch.zeros(4).double(), scale=1.0)
    assert (column(run.table, TOTAL, 5) > 1e-6).all()


@pytest.mark.parametrize("hold", [True, False])
def test_any_network(tmp_path, hold):
    run = watch(tmp_path, KernelDrift(samples=6, hold=hold), model=FlowModule(Scaled, **SHORT))
    assert len(set(run.module.member_buffers()["scale"].tolist())) == 2
    names = {f"kernel_drift/{name}" for name in ("total", "layers.1", "layers.2", "head")}
    assert set(run.table.filter(like="kernel_drift/")) == names
    for name, values in expected(run.module, run.module.w.detach(), run.module.data.test, 6).items():
        assert_close(last(run, name), values, rtol=1e-12)


def test_float32(tmp_path):
    options = {"alpha": [0.1, 1.0], "stop": StoppingCriteria(max_steps=12)}
    single, double = (watch(tmp_path / p, KernelDrift(), precision=p, **options) for p in ("32-true", "64-true"))
    assert single.module.w.dtype == torch.float32
    np.testing.assert_allclose(single.last(TOTAL), double.last(TOTAL), rtol=1e-4)


def test_layers_may_be_left_out_and_outputs_summed_over(tmp_path):
    data = small(labels="multiclass")
    drift = KernelDrift(layers=False, output="trace", samples=5)
    run = watch(tmp_path, drift, data=data, loss="cross_entropy", stop=StoppingCriteria(max_steps=5))
    m, x = run.module, data.test.x[:5]
    now, start = (sum(empirical_ntk_by_layer(m.network, w, x, output="trace").values()) for w in (m.w.detach(), m.w0))
    assert list(run.table.filter(like="kernel_drift/")) == [TOTAL]
    assert_close(last(run, TOTAL), relative_drift(now, start), rtol=1e-12)
    assert_close(last(run, "label_alignment"), label_alignment(now, data.test.y[:5]), rtol=1e-12)


def test_real_targets(tmp_path):
    data = TeacherStudent(d=4, n_train=10, n_test=6)
    run = watch(tmp_path, KernelDrift(), data=data, loss="mse", stop=StoppingCriteria(max_steps=5))
    for name, values in expected(run.module, run.module.w.detach(), data.test, 6).items():
        assert_close(last(run, name), values, rtol=1e-12)


@pytest.mark.parametrize(
    ("split", "n_kernel", "chosen"),
    [
        (None, 0, "test"),
        (None, 8, "kernel"),
        ("kernel", 8, "kernel"),
        ("test", 8, "test"),
        ("train", 8, "train"),
    ],
)
def test_samples_it_looks_at(tmp_path, split, n_kernel, chosen):
    data = small(n_kernel=n_kernel)
    run = watch(tmp_path, KernelDrift(split=split, samples=None), data=data, **SHORT)
    values = expected(run.module, run.module.w.detach(), getattr(data, chosen), None)
    assert_close(last(run, TOTAL), values[TOTAL], rtol=1e-12)
    assert_close(last(run, "label_alignment"), values["label_alignment"], rtol=1e-12)


def test_members_of_one_seed_share_their_start(tmp_path, monkeypatch):
    measured = Measured(monkeypatch)
    watch(tmp_path, KernelDrift(), alpha=[0.1, 1.0, 10.0], seeds=[5, 3], stop=StoppingCriteria(max_steps=5))
    assert {reference.start.model.members for reference in measured.references} == {2}


# ---------------------------------------------------------------------- when


def due(table, t_factor):
    """(observations, E) by the definition: a new power of t_factor, or the end of a member."""
    t, stopped = (table.pivot(index="observation", columns="member", values=v).to_numpy() for v in ("t", "reason"))
    with np.errstate(divide="ignore"):
        power = np.floor(np.log(t) / math.log(t_factor) + 1e-12)
    seen, looks = np.full(t.shape[1], np.nan), []
    for row, ended in zip(power, stopped != StopReason.RUNNING, strict=True):
        looks.append((row > seen) | np.isnan(seen) | ended)
        seen = np.where(looks[-1], row, seen)
    return np.array(looks)


def of_members(table, name):
    return table.pivot(index="observation", columns="member", values=name).to_numpy()


@pytest.mark.parametrize("t_factor", [1.5, 4.0])
def test_looks_at_powers_of_t_and_at_the_end(tmp_path, monkeypatch, t_factor):
    measured = Measured(monkeypatch)
    table = watch(tmp_path, KernelDrift(t_factor=t_factor), **APART).table
    found, looks = of_members(table, TOTAL), due(table, t_factor)
    assert np.array_equal(~np.isnan(found), looks)
    assert 0.1 < looks.mean() < 0.9
    stopped = of_members(table, "reason") != StopReason.RUNNING
    assert len({int(first) for first in stopped.argmax(axis=0)}) > 1  # they stop apart
    for member, first in enumerate(stopped.argmax(axis=0)):
        assert len(set(found[first:, member])) == 1
    assert measured.members == (looks & ~stopped).sum() + 4  # each is looked at once after its end


def test_every_observation(tmp_path):
    """Also where every step was rejected, so that t has not moved."""
    table = watch(tmp_path, KernelDrift(t_factor=None), **SHORT, dt=1e6).table
    assert (of_members(table, "t")[2] == 0).any()
    assert table[TOTAL].notna().all()


def test_both_ends(tmp_path):
    found = of_members(watch(tmp_path, KernelDrift(t_factor=math.inf), **SHORT).table, TOTAL)
    assert len(found) > 3
    assert np.array_equal(~np.isnan(found).any(axis=1), [True] + [False] * (len(found) - 2) + [True])


def test_without_a_network_there_is_nothing_to_measure(tmp_path):
    model = KernelModule(functools.partial(FC, width=6, depth=1), stop=StoppingCriteria(max_steps=3))
    assert not any("kernel" in name for name in watch(tmp_path, KernelDrift(), model=model).table)


# ---------------------------------------------------------------------- resuming


@pytest.mark.parametrize("bursts", [1, 7])
@pytest.mark.parametrize("hold", [True, False])
def test_resumed_run_has_the_undisturbed_table(tmp_path, hold, bursts):
    observers = functools.partial(lambda: [KernelDrift(hold=hold, t_factor=3.0)])
    whole = watch(tmp_path / "whole", *observers(), **APART)
    second = interrupted(tmp_path, observers, bursts, **APART)
    assert whole.table.observation.max() > 7
    assert_same_curves(second.table, whole.table)


def test_members_that_a_raised_limit_lets_go_on_are_looked_at_again(tmp_path):
    run = prolonged(tmp_path, lambda: [KernelDrift()], **MEMBERS)
    assert min(run.last("tried")) > 15
    values = expected(run.module, run.module.w.detach(), run.module.data.test, 200)
    assert_close(last(run, TOTAL), values[TOTAL], rtol=1e-12)


def test_added_to_a_resumed_run(tmp_path):
    observers = iter([[], [KernelDrift()]])
    run = interrupted(tmp_path, lambda: next(observers), **SHORT)
    values = expected(run.module, run.module.w.detach(), run.module.data.test, 200)
    assert_close(last(run, TOTAL), values[TOTAL], rtol=1e-12)
    assert run.table[run.table.observation < 6][TOTAL].isna().all()


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("hold", [True, False])
def test_member_that_is_not_finite(tmp_path, caplog, hold):
    clean = watch(tmp_path / "a", KernelDrift(t_factor=None, hold=hold), **SHORT).table
    with caplog.at_level(logging.WARNING, "lazy_lightning"):
        table = watch(tmp_path / "b", Poison(), KernelDrift(t_factor=None, hold=hold), **SHORT).table
    assert [r.getMessage().split(" at t")[0] for r in caplog.records if r.name.startswith("lazy_lightning")] == [
        "KernelDrift: the kernel of the member with alpha 0.1 and seed 1 is not finite"
    ]
    poisoned = (table.member == 1) & (table.observation >= 3)
    assert table[poisoned][[TOTAL, "kernel_alignment", "label_alignment"]].isna().all(axis=None)
    others = table.member != 1
    np.testing.assert_allclose(table[others][TOTAL], clean[others][TOTAL], rtol=0, atol=1e-14)
    assert table.tried.max() == 12


class Mixing(nn.Module):
    """In batches that are larger than those by which a network is tried before the fit."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x - x.mean(0) if len(x) > 8 else x)


def test_samples_that_depend_on_each_other_are_told_and_not_measured(tmp_path, caplog):
    run = watch(tmp_path, KernelDrift(), model=FlowModule(Mixing, stop=StoppingCriteria(max_steps=3)))
    assert "Mixing gives another output" in caplog.text
    assert "replace the layer that mixes samples" in caplog.text
    assert run.table[TOTAL].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples >= 2, got 1"),
        ({"t_factor": 1.0}, "t_factor > 1, or null .* got 1.0"),
        ({"t_factor": math.nan}, "t_factor > 1"),
        ({"output": "diagonal"}, "'diagonal', expected full or trace"),
        ({"tile": 0}, "tile >= 1.* got 0"),
    ],
    ids=str,
)
def test_refused_when_configured(options, message):
    with pytest.raises(ConfigError, match=message):
        KernelDrift(**options)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"split": "kernel"}, {}, "the kernel set is empty: set data.n_kernel"),
        ({"split": "validation"}, {}, "'validation', expected kernel, test, train"),
        ({}, {"n_test": 1}, "2 samples at least, but the test set has 1: set a larger data.n_test"),
    ],
    ids=str,
)
def test_refused_at_the_start(tmp_path, options, data, message):
    with pytest.raises(ConfigError, match=message):
        watch(tmp_path, KernelDrift(**options), data=small(**data))
