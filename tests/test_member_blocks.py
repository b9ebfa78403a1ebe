"""Blocks of members give the numbers of the whole batch, whatever their size and the company."""

import functools
from dataclasses import replace

import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import copied, problem
from torch import nn

from lazy_lightning.flow import MarginsMet, StepsTried
from lazy_lightning.nn.directional_derivative import pullback
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.linearize import tangent_outputs
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.objective import member_blocks
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.loss_over_sets import LossOverSets
from lazy_lightning.objective.losses import build_loss
from lazy_lightning.objective.member_blocks import block_size, blocks, outputs_in_blocks
from lazy_lightning.objective.paired_batch import PairedObjective

ALPHAS, SEEDS = (0.1, 1.0, 30.0), (0, 1, 2)
E = len(ALPHAS) * len(SEEDS)


@given(members=st.integers(1, 300), size=st.one_of(st.none(), st.integers(1, 40).map(lambda k: 2 * k)))
def test_blocks_cover_the_members_and_begin_at_even_ones(members, size):
    found = blocks(members, size)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(members))
    assert all(part.start % 2 == 0 for part in found)
    assert len(found) == 1 or all(2 <= part.stop - part.start <= size + 1 for part in found)


def evaluate(objective, w):
    point = w.clone().requires_grad_(True)
    return objective.backward(point), point.grad


def with_own_samples(base):
    """Each member has one of three sets of samples."""
    x = torch.stack([base.objective.x * factor for factor in (1.0, 0.9, 1.1)])
    y = torch.stack([base.objective.y, -base.objective.y, base.objective.y])
    own = torch.arange(E) % 3
    return copied(base, x=MemberSamples(x, own), y=MemberSamples(y, own), loss=LossOverSets(base.objective.loss))


def by_vmap(base):
    """The same by ``vmap``."""
    network = MemberNetwork(base.objective.network.template)
    network._batched = None
    return copied(base, network=network)


CASES = {
    "softhinge": {},
    "hinge": {"loss": "hinge"},
    "classes": {"loss": "cross_entropy", "y": torch.arange(8) % 3, "num_outputs": 3},
    "chunks": {"chunk_size": 3},
    "float32": {"dtype": torch.float32},
    "relu, biases": {"activation": "relu", "bias": 1.0, "last_bias": 1.0},
}


@pytest.mark.parametrize("change", [lambda base: base, with_own_samples, by_vmap], ids=["shared", "own", "vmap"])
@pytest.mark.parametrize("name", CASES)
def test_loss_outputs_and_gradient_are_those_of_the_whole_batch(name, change):
    if change is with_own_samples and name == "classes":
        pytest.skip("labels of classes have no sign to turn")
    base = change(problem(ALPHAS, SEEDS, **{"loss": "softhinge(5)", "samples": 8, **CASES[name]}))
    w = base.w0 * 1.1
    whole, gradient = evaluate(base.objective, w)
    rtol = 1e-5 if w.dtype == torch.float32 else 1e-12
    for size in (2, 4):
        found, by_blocks = evaluate(replace(base.objective, block_size=size), w)
        for mine, other in zip((*found, by_blocks), (*whole, gradient), strict=True):
            assert (mine is None) == (other is None)
            if mine is not None:
                assert_close(mine.to(w.dtype), other.to(w.dtype), rtol=rtol)


@pytest.mark.parametrize("change", [lambda base: base, with_own_samples, by_vmap], ids=["shared", "own", "vmap"])
@pytest.mark.parametrize("size", [2, 4, None])
def test_outputs_and_their_derivative_by_blocks(size, change):
    base = change(problem(ALPHAS, SEEDS, samples=8))
    network, x, buffers = base.objective.network, base.objective.x, base.objective.buffers
    w, dw = base.w0 * 1.1, torch.randn_like(base.w0)

    def by_blocks(weights):
        return outputs_in_blocks(network, weights, x, buffers, size)

    assert_close(by_blocks(w), network(w, x, buffers), rtol=1e-12)
    assert_close(raw_outputs(network, w, x, buffers, 3, size), network(w, x, buffers), rtol=1e-12)
    expected = tangent_outputs(lambda weights: network(weights, x, buffers), w, dw)
    assert_close(tangent_outputs(by_blocks, w, dw), expected, rtol=1e-12)
    pulled = pullback(lambda weights: network(weights, x, buffers), w, expected)
    assert_close(pullback(by_blocks, w, expected), pulled, rtol=1e-12)


@pytest.mark.parametrize("change", [lambda base: base, with_own_samples, by_vmap], ids=["shared", "own", "vmap"])
def test_blocks_are_as_large_in_the_evaluation_of_a_trainer(change):
    """Which runs in inference mode, where autograd saves nothing and refuses tensors that were made there."""
    base = change(problem(ALPHAS, SEEDS, samples=8))
    network, x, buffers = base.objective.network, base.objective.x, base.objective.buffers
    outside = block_size(network, base.w0, x, buffers)
    with torch.inference_mode():
        made_there = MemberSamples(x.sets.clone(), x.own.clone()) if isinstance(x, MemberSamples) else x.clone()
        assert block_size(network, base.w0, x, buffers) == outside
        assert block_size(network, base.w0, made_there, buffers, 5) == block_size(network, base.w0, x, buffers, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("width", "samples"), [(32, 64), (16, 128)])
def test_equal_to_the_bit_on_one_thread(width, samples, dtype):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several, each product is divided by the size of the batch
    try:
        base = problem(ALPHAS, SEEDS, samples=samples, inputs=16, width=width, dtype=dtype)
        w = base.w0 * 1.1
        whole, gradient = evaluate(base.objective, w)
        for size in (2, 4):
            found, by_blocks = evaluate(replace(base.objective, block_size=size), w)
            assert torch.equal(by_blocks, gradient)
            assert torch.equal(found.outputs, whole.outputs)
            assert torch.equal(found.loss, whole.loss)
    finally:
        torch.set_num_threads(threads)


def test_a_gradient_that_is_there_is_added_to():
    base = problem(ALPHAS, SEEDS)
    w = (base.w0 * 1.1).requires_grad_(True)
    objective = replace(base.objective, block_size=2)
    objective.backward(w)
    once = w.grad.clone()
    objective.backward(w)
    assert torch.equal(w.grad, 2 * once)


def test_pairs_are_evaluated_in_blocks_too():
    base = problem(ALPHAS, SEEDS, samples=8)
    dw = 0.1 * base.w0
    whole, gradient = evaluate(PairedObjective.of(base.objective, base.w0), dw)
    found, by_blocks = evaluate(PairedObjective.of(replace(base.objective, block_size=2), base.w0), dw)
    assert_close(by_blocks, gradient, rtol=1e-12)
    assert_close(found.outputs, whole.outputs, rtol=1e-12)


@functools.cache
def trajectories():
    return run(range(E))


def run(rows):
    """To the end by blocks of two; members leave the batch at different times."""
    base = copied(problem(ALPHAS, SEEDS, samples=8), block_size=2)
    return base.member(rows).to_end(events=[MarginsMet(0.5), StepsTried(240)], compact=True).flow_state


@settings(max_examples=6)
@given(rows=st.permutations(range(E)).flatmap(lambda p: st.integers(1, E).map(lambda k: p[:k])))
def test_a_member_does_not_depend_on_its_company_nor_on_its_block(rows):
    found, together = run(rows), trajectories()
    for name in ("tried", "accepted", "reason"):
        assert torch.equal(getattr(found, name), getattr(together, name)[rows]), name
    for name in ("t", "displacement", "loss", "gradient"):
        for mine, other in zip(getattr(found, name), getattr(together, name)[rows], strict=True):
            assert_close(mine, other, rtol=1e-12)


def test_size_is_as_many_members_as_save_the_bytes_of_a_block(monkeypatch):
    """One member of FC saves inputs and outputs of its two nonlinearities, (5, 8) each, and its weights."""
    base = problem(ALPHAS, SEEDS, samples=8)
    o = base.objective
    member = 8 * (4 * 5 * 8 + base.w0.shape[1])
    for blocks_of in (2, 6):
        monkeypatch.setattr(member_blocks, "BLOCK_BYTES", (blocks_of + 1) * member + 7)
        assert block_size(o.network, base.w0, o.x, {}) == blocks_of
    monkeypatch.setattr(member_blocks, "BLOCK_BYTES", 1)
    assert block_size(o.network, base.w0, o.x, {}) == 2
    assert block_size(o.network, base.w0[:3], o.x, {}) is None
    assert block_size(o.network, base.w0.to("meta"), o.x, {}) is None


def test_size_of_a_network_with_buffers_of_its_own():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)
            self.register_buffer("shift", torch.zeros(4))

        def forward(self, x):
            return self.layer(x + self.shift)

    network = MemberNetwork(Shifted().double())
    w, x = torch.randn(6, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    assert block_size(network, w, x, {"shift": torch.randn(6, 4, dtype=torch.float64)}) >= 6


class Gain(nn.Module):
    """A network with a parameter without axes."""

    def __init__(self, input_shape):
        super().__init__()
        self.layer, self.gain = nn.Linear(input_shape[0], 1), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.gain * self.layer(x)


@pytest.mark.parametrize("size", [None, 2])
def test_parameter_without_axes_has_its_gradient(size):
    members = InitialMembers(Gain, [0, 1, 2, 3], (3,), 1)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([1.0, -1, 1, 1, -1], dtype=torch.float64)
    centering = Centering(torch.full((4,), 2.0, dtype=torch.float64))
    f0 = raw_outputs(members.network, members.w0, x, {})
    objective = Objective(members.network, build_loss("mse"), centering, x, y, f0, {}, block_size=size)
    w = (members.w0 + 0.1).requires_grad_()
    objective.backward(w)
    leaf = w.detach().clone().requires_grad_()
    outputs = 2 * (members.network(leaf, x, {}) - f0).squeeze(-1)
    (objective.loss.per_sample(outputs, y).mean(dim=1) / 4).sum().backward()
    torch.testing.assert_close(w.grad, leaf.grad, rtol=1e-12, atol=1e-14)
