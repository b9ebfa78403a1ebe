"""A member is the module that its seed builds, alone or with others, whatever its constructor draws; or is refused."""

import functools

import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from stateful_networks import CARRIED, REFUSED, Stateful
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import FC
from lazy_lightning.nn.construction import built_from, fitted_to_data
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.members import MemberNetwork

SEEDS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def module_of(factory, seed, shape=(4,)):
    return built_from(fitted_to_data(factory, shape, 1), seed, shape)


@torch.no_grad()
def put(module, row):
    """Weights of one member in the place of the module's trainable parameters."""
    for p in module.parameters():
        if p.requires_grad:
            p.copy_(row[: p.numel()].view_as(p))
            row = row[p.numel() :]
    assert not row.numel()
    return module


def assert_members_are_modules(factory, seeds, moved=0.0, shape=(4,)):
    members = InitialMembers(factory, seeds, shape, 1)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    w = members.w0 + moved * torch.randn(members.w0.shape, generator=generator, dtype=torch.float64)
    outputs = members.network(w, x, members.buffers)
    for row, seed, output in zip(w, seeds, outputs, strict=True):
        assert_close(output, put(module_of(factory, seed, shape), row)(x).detach())
        alone = InitialMembers(factory, [seed], shape, 1)
        assert_close(alone.network(row.unsqueeze(0), x, alone.buffers)[0], output)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(CARRIED), max_size=4), SEEDS, st.floats(0, 2))
def test_members_equal_the_modules_of_their_seeds(kinds, seeds, moved):
    factory = functools.partial(Stateful, sorted(kinds))
    if {"frozen first layer", "frozen head"} <= kinds:
        with pytest.raises(ConfigError, match="no parameters with requires_grad"):
            InitialMembers(factory, seeds, (4,), 1)
        return
    assert_members_are_modules(factory, seeds, moved)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(REFUSED)), st.sets(st.sampled_from(CARRIED), max_size=2), SEEDS)
def test_what_differs_between_seeds_and_cannot_be_carried_is_named(kind, others, seeds):
    factory = functools.partial(Stateful, [kind, *sorted(others - {"frozen head"})])
    if len(set(seeds)) == 1 and kind != "complex parameter":
        assert_members_are_modules(factory, seeds, 0.5)
        return
    with pytest.raises(ConfigError, match=REFUSED[kind]) as error:
        InitialMembers(factory, seeds, (4,), 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("frozen", ["frozen first layer", "frozen head"])
def test_frozen_parameters_are_neither_weights_nor_moved(frozen):
    members = InitialMembers(functools.partial(Stateful, [frozen]), [0, 1], (4,), 1)
    sizes = {"frozen first layer": 6 * 4 + 6, "frozen head": 6 + 1}
    assert members.network.weights == members.w0.shape[1] == 37 - sizes[frozen]
    layer = "first" if frozen == "frozen first layer" else "last"
    assert set(members.buffers) == {f"{layer}.weight", f"{layer}.bias"}
    assert not members.network.template.get_submodule(layer).weight.requires_grad
    assert list(members.network.layer_slices()) == [{"first": "last", "last": "first"}[layer]]


def test_a_network_with_a_path_of_its_own_keeps_its_frozen_layers():
    def build(input_shape):
        net = FC(5, 2, bias=0.3, input_shape=input_shape)
        net.hidden[0].requires_grad_(False)
        return net

    assert_members_are_modules(build, [0, 3], 0.5)


def test_a_generator_that_is_not_seeded_is_found_out():
    class Unseeded(Stateful):
        def __init__(self):
            super().__init__()
            self.register_buffer("noise", torch.randn(6, generator=torch.Generator().manual_seed(next(COUNT))))

    COUNT = iter(range(100))
    with pytest.raises(ConfigError, match=r"another each time that it is built from seed 0 \(its buffer noise\)"):
        InitialMembers(Unseeded, [0], (4,), 1)


def test_a_view_of_a_weight_cannot_be_carried():
    class Tied(Stateful):
        def __init__(self):
            super().__init__()
            self.view = self.first.weight.data.T

        def forward(self, x):
            return torch.tanh(self.first(x)) @ self.view.T @ torch.ones(4, 1, dtype=x.dtype)

    with pytest.raises(ConfigError, match=r"cannot be evaluated as a member .*tensors that its constructor made"):
        InitialMembers(Tied, [0], (4,), 1)


def test_global_generators_are_left_as_they_were():
    import random

    import numpy as np

    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    InitialMembers(functools.partial(Stateful, ["mask of NumPy", "mask of Python"]), [0, 1], (4,), 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


class Recurrent(nn.Module):
    def __init__(self, kind, input_shape, num_outputs: int):
        super().__init__()
        self.recurrent = kind(input_shape[-1], 4, batch_first=True)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Selecting(Stateful):
    """The boolean index has a result of unknown size under vmap."""

    def forward(self, x):
        z = torch.tanh(self.first(x))
        return self.last(torch.cat([z[:, self.mask], z[:, ~self.mask]], dim=1))


class WithDerivative(Stateful):
    """As a physics-informed network: forward differentiates."""

    def forward(self, x):
        x.requires_grad_(True)
        u = super().forward(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return u + slope.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (functools.partial(Recurrent, nn.LSTM), (3, 4)),
        (functools.partial(Recurrent, nn.GRU), (3, 4)),
        (functools.partial(Selecting, ["mask buffer"]), (4,)),
        (WithDerivative, (4,)),
    ],
)
def test_networks_that_vmap_cannot_map_are_evaluated_in_turn(factory, shape):
    with pytest.warns(UserWarning, match="they are evaluated one after the other"):
        assert InitialMembers(factory, [0, 1], shape, 1).network.loops
    with pytest.warns(UserWarning, match="vmap cannot map"):
        assert_members_are_modules(factory, [0, 3, 0], 0.3, shape)


def channels_last():
    layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1))
    return layers.to(memory_format=torch.channels_last)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3, sparse=True)
        self.head = nn.Linear(12, 1)

    def forward(self, x):
        return self.head(self.embedding(x.long().remainder(5)).flatten(1))


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (channels_last, (2, 3, 3)),
        (Tokens, (4,)),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(1)), (2, 3)),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 1)), (4,)),
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_layers_of_every_kind(factory, shape):
    assert_members_are_modules(factory, [0, 3, 0], 0.3, shape)
    members = InitialMembers(factory, [0, 1], shape, 1)
    w = members.w0.clone().requires_grad_()
    members.network(w, torch.ones(3, *shape, dtype=torch.float64), members.buffers).sum().backward()
    assert w.grad.abs().sum() > 0


class Dropping(Stateful):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5))


class Coupled(Stateful):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class InSingle(Stateful):
    def forward(self, x):
        return super().forward(x + torch.ones(4, dtype=torch.float32)) @ torch.ones(1, 1, dtype=torch.float32)


class Forgetful(Stateful):
    def forward(self, x):
        return super().forward(x).detach()


class Wrongly(Stateful):
    def forward_members(self, params, x):
        return torch.zeros(len(params["last.bias"]), len(x), 1, dtype=x.dtype)


class Spectral(Stateful):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.first)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (Dropping, "draws random numbers in forward"),
        (Coupled, "couples the samples of a batch"),
        (InSingle, "make what forward creates follow x.dtype"),
        (Forgetful, "has no gradient"),
        (Wrongly, "Wrongly.forward_members is not what forward is"),
        (Spectral, "changes first.parametrizations.weight.0._u at each evaluation"),
        (lambda: nn.Linear(4, 1).requires_grad_(False), "no parameters with requires_grad"),
        (lambda: nn.LSTM(4, 1), "must put out one tensor"),
        (lambda: nn.Linear(4, 1, dtype=torch.complex128), "the parameter weight of the network Linear is complex"),
    ],
)
def test_refused_in_one_sentence(factory, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        InitialMembers(factory, [0, 1], (4,), 1)
    assert "\n" not in str(error.value)


def test_complex_outputs_are_refused():
    class Complex(Stateful):
        def forward(self, x):
            return super().forward(x) * 1j

    network = MemberNetwork(Complex())
    with pytest.raises(ConfigError, match="puts out complex numbers"):
        network(torch.zeros(2, network.weights), torch.ones(3, 4))
