"""Streams by purpose and seed, and members that depend on their seed alone."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

from lazy_lightning.modules import Ensemble
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.seeding import derived_seed, generator

FACTORIES = {
    "FC": functools.partial(FC, width=5, depth=2),
    "torch layers": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
}
factories = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def w0(factory, seeds):
    return InitialMembers(factory, seeds, (4,), 1).w0


@factories
def test_a_member_depends_on_its_seed_alone(factory):
    together = w0(factory, [0, 1, 2, 7])
    assert torch.equal(w0(factory, [7])[0], together[3])
    assert torch.equal(w0(factory, [2, 0, 0]), together[[2, 0, 0]])
    assert len({tuple(row.tolist()) for row in together}) == 4


@factories
def test_global_random_states_are_neither_read_nor_changed(factory):
    expected = w0(factory, [3])
    torch.manual_seed(99)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(w0(factory, [3]), expected)
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(after[0], before[0])
    assert after[1:] == before[1:]


def test_generators_of_the_gpu_are_left_alone(monkeypatch):
    """torch.manual_seed would seed them too, and fork_rng(devices=[]) does not bring them back."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded the GPU"))
    w0(FACTORIES["FC"], [0])


@factories
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_dtype_does_not_matter(factory, dtype):
    expected = w0(factory, [0])
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = w0(factory, [0])
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(previous)
    assert found.dtype == torch.float64
    assert torch.equal(found, expected)


def test_members_of_one_seed_share_their_start_whatever_alpha():
    ensemble = Ensemble.of([0.1, 10.0], 2)
    start = w0(FACTORIES["FC"], ensemble.seeds)
    assert torch.equal(start[:2], start[2:])


def test_purposes_and_seeds_give_unrelated_streams():
    keys = [(p, s) for p in ("init", "data/train", "data/test") for s in range(5)]
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    a, b = (torch.randn(1000, generator=generator(p, 0)) for p in ("init", "data/train"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.1  # three standard errors


def test_seeds_are_fixed_for_all_time():
    """Results of a seed must not change with a version."""
    assert derived_seed("init", 0) == 4757468401354254697
    assert derived_seed("init", 1) < 2**63


def test_negative_seed_refused():
    with pytest.raises(ValueError, match="-1"):
        derived_seed("init", -1)
