"""Gates noted and held by hooks, against a network written out with masks."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import CNN, FC, VGG, MemberNetwork, ResNet18

SHAPE = (2, 7, 7)


class Small(nn.Module):
    """Convolution, ReLU, pool, twice, as torchvision writes it: one ReLU, in place, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)
        self.fc = nn.Linear(4 * 4 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.one(x)))
        return self.fc(self.relu(self.two(x)).flatten(1))


def members(build, E: int = 3, seed: int = 0) -> tuple[MemberNetwork, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MemberNetwork(build().double())
        return network, 0.5 * torch.randn(E, network.weights, dtype=torch.float64)


def samples(n: int = 5, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(p: dict[str, Tensor], p0: dict[str, Tensor], x: Tensor) -> Tensor:
    """Small at p with the masks of p0, of one member."""
    a0 = F.conv2d(x, p0["one.weight"], p0["one.bias"], padding=1)
    pooled0, place = F.max_pool2d(a0.relu(), 3, 2, 1, return_indices=True)
    b0 = F.conv2d(pooled0, p0["two.weight"], p0["two.bias"], padding=1)
    a = F.conv2d(x, p["one.weight"], p["one.bias"], padding=1) * (a0 > 0)
    pooled = torch.stack([row[i] for row, i in zip(a.reshape(-1, 49), place.reshape(-1, 16), strict=True)])
    b = F.conv2d(pooled.view(len(x), 3, 4, 4), p["two.weight"], p["two.bias"], padding=1) * (b0 > 0)
    return F.linear(b.flatten(1), p["fc.weight"], p["fc.bias"])


def test_held_network_is_the_one_with_masks():
    (network, w), (_, w0) = members(Small), members(Small, seed=1)
    x = samples()
    held, params, start = network.with_frozen_gates(w, w0, x), network.unpack(w), network.unpack(w0)
    for e in range(3):
        one, zero = ({name: p[e] for name, p in given.items()} for given in (params, start))
        assert_close(held[e], by_hand(one, zero, x))
    assert not torch.allclose(held, network(w, x))


NETWORKS = {
    "small": (Small, SHAPE),
    "VGG": (functools.partial(VGG, 11, 1 / 32, input_shape=(1, 8, 8)), (1, 8, 8)),
    "standard": (functools.partial(VGG, 11, 1 / 32, parametrisation="standard", input_shape=(1, 8, 8)), (1, 8, 8)),
    "ResNet": (functools.partial(ResNet18, 1 / 32, input_shape=(1, 8, 8)), (1, 8, 8)),
    "FC": (functools.partial(FC, width=7, depth=2, activation="relu", input_shape=4), (4,)),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_at_the_start_nothing_is_held_back(case):
    build, shape = NETWORKS[case]
    network, w = members(build)
    x = samples(4, shape)
    assert_close(network.with_frozen_gates(w, w, x), network(w, x))


@pytest.mark.parametrize("case", NETWORKS)
def test_small_steps_change_no_gate(case):
    """So the held network is the network itself, not only to first order."""
    build, shape = NETWORKS[case]
    network, w0 = members(build)
    x, w = samples(4, shape), w0 + 1e-9 * torch.randn_like(w0)
    for name, gate in network.gates(w, x).items():
        assert torch.equal(gate, network.gates(w0, x)[name])
    assert_close(network.with_frozen_gates(w, w0, x), network(w, x), rtol=1e-12)


def test_gradient_is_that_of_finite_differences():
    (network, w), (_, w0) = members(Small), members(Small, seed=1)
    x, along = samples(3), torch.randn_like(w)
    w = w.requires_grad_()
    (gradient,) = torch.autograd.grad(network.with_frozen_gates(w, w0, x).square().sum(), w)
    step = 1e-6
    ahead, behind = (network.with_frozen_gates(w.detach() + s * step * along, w0, x).square().sum() for s in (1, -1))
    assert_close((gradient * along).sum(), (ahead - behind) / (2 * step), rtol=1e-8)


def test_members_do_not_matter_to_each_other():
    (network, w), (_, w0) = members(Small), members(Small, seed=1)
    x = samples()
    assert_close(network.with_frozen_gates(w[1:2], w0[1:2], x), network.with_frozen_gates(w, w0, x)[1:2])
    for name, gate in network.gates(w, x).items():
        assert torch.equal(gate[1:2], network.gates(w[1:2], x)[name])


def test_names_and_kinds():
    network, w = members(Small)
    gates = network.gates(w, samples())
    assert {name: (tuple(gate.shape), gate.dtype) for name, gate in gates.items()} == {
        "relu": ((3, 5, 3, 7, 7), torch.bool),
        "pool": ((3, 5, 3, 4, 4), torch.int64),
        "relu#2": ((3, 5, 4, 4, 4), torch.bool),
    }


def test_hooks_are_gone_afterwards():
    network, w = members(Small)
    network.with_frozen_gates(w, w, samples())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.template.modules())


class Functional(nn.Module):
    """A ReLU that no hook sees, beside one that hooks see."""

    def __init__(self, function) -> None:
        super().__init__()
        self.one, self.act, self.two, self.function = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.function(self.act(self.one(x))))


@pytest.mark.parametrize(
    "function", [F.relu, torch.relu, Tensor.relu, torch.tanh, F.leaky_relu, lambda z: z.clamp(min=0.0)]
)
def test_functions_are_found_out(function):
    network, w = members(functools.partial(Functional, function))
    with pytest.raises(ConfigError, match=r"as a function, where its choices cannot be frozen"):
        network.with_frozen_gates(w, w, samples(2, (3,)))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            functools.partial(CNN, width=2, stages=1, layers=1, input_shape=(1, 8, 8)),
            r"is softplus\(5\), which makes no",
        ),
        (functools.partial(FC, width=3, activation="tanh", input_shape=4), "is tanh, which makes no choice"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.GELU()), "is GELU, which makes no choice"),
        (lambda: nn.Linear(3, 2), "has no ReLU and no max-pool"),
    ],
)
def test_networks_without_gates_are_refused(build, sentence):
    network, w = members(build)
    with pytest.raises(ConfigError, match=sentence):
        network.gates(w, samples(2, (3,)))
