"""The objective of slices of the samples against that of all, and how samples and processes are divided."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from closeness import assert_close
from test_objective import CASES, N, setting

from lazy_lightning.callbacks import KernelDrift, PathDistance
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observers import ObserverRunner
from lazy_lightning.modules.rank_mesh import sample_slices
from lazy_lightning.modules.sample_ranks import SampleRanks
from lazy_lightning.modules.shared_trajectory import DecisionOfFirst
from lazy_lightning.objective.sharded_batch import ShardedObjective


def slices(base, count):
    """The objectives of ``count`` processes, which take turns here: the first turn collects what they add up."""
    total, objective = [], base.objective

    def add(x):
        total.append(x.clone())
        return x

    def add_all(parts):
        return lambda x: x.copy_(parts.pop(0))

    def of(rank, combine):
        rows = SampleRanks(rank, count).rows(N)
        own = replace(objective, x=objective.x[rows], y=objective.y[rows], f0=objective.f0[:, rows], samples=N)
        return ShardedObjective(own, objective.y, rows, combine, objective.reports_margins)

    def evaluated(method):
        turns = []
        for rank in range(count):
            total.clear()
            method(of(rank, add))
            turns.append(list(total))
        sums = [torch.stack(parts).sum(dim=0) for parts in zip(*turns, strict=True)]
        return [method(of(rank, add_all(list(sums)))) for rank in range(count)]

    return evaluated


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_slices_of_any_size_equal_all_samples(name, count):
    base = setting(name)
    rows = torch.tensor([1, 3])

    def evaluate(objective):
        w = (base.w0[rows] * 1.1).requires_grad_(True)
        found = objective.select(rows).backward(w)
        return found, w.grad

    expected, gradient = evaluate(base.objective)
    for outputs in slices(base, count)(lambda objective: objective.outputs_at(base.w0 * 1.1)):
        assert_close(outputs[rows], expected.outputs)
    for found, own in slices(base, count)(evaluate):
        assert_close(own, gradient)
        assert_close(found.loss, expected.loss)
        assert_close(found.outputs, expected.outputs)
        assert (found.flat is None) == (expected.flat is None)
        if expected.margins is not None:
            assert_close(found.margins, expected.margins)


def test_gradient_scale_of_slices_equals_that_of_all_samples():
    base = setting("mse regressions")
    expected = base.objective.gradient_scale(base.w0)
    for found in slices(base, 4)(lambda objective: objective.gradient_scale(base.w0)):
        assert_close(found, expected)


def test_slices_cover_all_samples_and_differ_by_one_at_most():
    parts = [SampleRanks(rank, 8).rows(37) for rank in range(8)]
    assert [i for part in parts for i in range(37)[part]] == list(range(37))
    assert {len(range(37)[part]) for part in parts} == {4, 5}


def test_fewer_samples_than_devices_is_one_sentence():
    with pytest.raises(ConfigError, match="2 samples for 3 devices"):
        SampleRanks(0, 3).rows(2)


@pytest.mark.parametrize(
    ("shard", "devices", "members", "found"),
    [("members", 4, 4, 1), ("samples", 4, 1, 4), ("both", 1, 1, 1), ("both", 6, 3, 2), ("both", 6, 2, 3)],
)
def test_processes_are_divided_into_as_many_members_as_leave_two_slices(shard, devices, members, found):
    assert sample_slices(shard, devices, members) == found


def test_an_observer_of_all_training_inputs_is_refused_by_name():
    module = SimpleNamespace(trains_network=True, follows_flow=True, sample_ranks=SampleRanks(0, 2))
    module.trainer = SimpleNamespace(callbacks=[PathDistance()])
    with pytest.raises(ConfigError, match="PathDistance needs all training inputs on one device"):
        ObserverRunner().check(module)
    assert not KernelDrift.needs_all_inputs


def test_decisions_are_those_of_the_first_process_in_their_own_types():
    class Second(SampleRanks):
        def of_first(self, x):
            return x.copy_(torch.tensor([[0.0, 1.0], [0.25, 0.5]], dtype=torch.float64))

    accept, dt = DecisionOfFirst(Second(1, 2))(torch.tensor([True, True]), torch.ones(2, dtype=torch.float64))
    assert accept.tolist() == [False, True]
    assert dt.tolist() == [0.25, 0.5]
