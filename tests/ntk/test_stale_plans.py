"""Whatever of a network changes between two kernels, the second is that of the network as it is then."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from ntk_cases import contracted, lin
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.ntk import kernel_plan as plans
from lazy_lightning.ntk.fingerprint import fingerprint

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4).sin()
FACTOR = 1.0
SETTINGS = SimpleNamespace(factor=1.0)


class Slots:
    """What cannot be looked into."""

    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor = 1.0


def helper(z: Tensor) -> Tensor:
    return FACTOR * z


class Net(nn.Module):
    """Its first weight is used a second time, by a factor that many things decide."""

    shared = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.body, self.act, self.head = lin(4, 4), nn.Tanh(), lin(4, 2)
        self.register_buffer("strength", torch.ones(()))
        self.plain, self.number, self.words, self.options = torch.ones(()), 1.0, ["one"], {"factor": 1.0}
        self.inside, self.slots, self.function = SimpleNamespace(factor=1.0), Slots(), lambda z: z

    def scaled(self, z: Tensor) -> Tensor:
        return self.shared * SETTINGS.factor * helper(z)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.strength * self.plain * self.number * len(self.words) * self.options["factor"]
        factor = factor * self.inside.factor * self.slots.factor - 1
        again = F.linear(x, self.body.weight)
        return self.head(
            self.act(self.body(x)) + factor * again + self.scaled(again) - again + self.function(again) - again
        )


def hooked(net: Net, factor: float) -> None:
    """In place of the hook before, whose id the new one often gets."""
    for handle in net.__dict__.setdefault("_handles", []):
        handle.remove()
    net.__dict__["_handles"] = [net.body.register_forward_hook(lambda module, args, output: factor * output**2)]


def hooked_before(net: Net, factor: float) -> None:
    net.body.register_forward_pre_hook(lambda module, args: (factor * args[0] ** 2,))


def cell(factor: float):
    def scaled(z: Tensor) -> Tensor:
        return factor * z

    def change(new: float) -> None:
        nonlocal factor
        factor = new

    return scaled, change


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.factor * weight**3


def set_global(net: Net, factor: float) -> None:
    global FACTOR
    FACTOR = factor


CHANGES = {
    "hook": hooked,
    "hook before": hooked_before,
    "buffer in place": lambda net, factor: net.strength.fill_(factor),
    "buffer": lambda net, factor: net.register_buffer("strength", torch.tensor(factor)),
    "tensor in place": lambda net, factor: net.plain.fill_(factor),
    "number": lambda net, factor: setattr(net, "number", factor),
    "list": lambda net, factor: net.words.append("more"),
    "dictionary": lambda net, factor: net.options.update(factor=factor),
    "object": lambda net, factor: setattr(net.inside, "factor", factor),
    "object without a dictionary": lambda net, factor: setattr(net.slots, "factor", factor),
    "function": lambda net, factor: setattr(net, "function", lambda z: factor * z),
    "partial": lambda net, factor: setattr(net, "function", functools.partial(torch.mul, factor)),
    "class attribute": lambda net, factor: setattr(Net, "shared", factor),
    "method of the class": lambda net, factor: setattr(Net, "scaled", lambda self, z: factor * z),
    "global": set_global,
    "object in a global": lambda net, factor: setattr(SETTINGS, "factor", factor),
    "flag": lambda net, factor: net.body.bias.requires_grad_(not net.body.bias.requires_grad),
    "another flag": lambda net, factor: net.head.weight.requires_grad_(not net.head.weight.requires_grad),
    "parametrization": lambda net, factor: parametrize.register_parametrization(net.head, "weight", Scaled(factor)),
    "forward": lambda net, factor: setattr(net.head, "forward", lambda z: factor * F.linear(z**2, net.head.weight)),
    "layer": lambda net, factor: setattr(net, "act", nn.Softplus(factor)),
    "tied": lambda net, factor: setattr(net.body, "weight", nn.Parameter(factor * net.body.weight.detach())),
}


@pytest.fixture(autouse=True)
def as_it_was():
    before = Net.shared, Net.scaled, FACTOR, SETTINGS.factor
    yield
    Net.shared, Net.scaled = before[:2]
    set_global(None, before[2])
    SETTINGS.factor = before[3]


def brute_force(net: nn.Module) -> Tensor:
    weights = [p for p in net.parameters() if p.requires_grad]
    rows = [
        torch.autograd.grad(v, weights, allow_unused=True, materialize_grads=True, retain_graph=True)
        for sample in X
        for v in net(sample.unsqueeze(0))[0]
    ]
    own = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).view(len(X), 2, -1)
    return contracted(own, own, "trace")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.sampled_from([0.5, 1.5, 3.0])), min_size=1, max_size=4))
def test_kernel_after_any_changes(changes):
    before = Net.shared, Net.scaled, FACTOR, SETTINGS.factor
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            net = Net().double()
        for name, factor in changes:
            empirical_ntk(net, None, X, output="trace")
            CHANGES[name](net, factor)
        assert_close(empirical_ntk(net, None, X, output="trace"), brute_force(net), rtol=1e-11)
    finally:
        Net.shared, Net.scaled = before[:2]
        set_global(None, before[2])
        SETTINGS.factor = before[3]


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"object without a dictionary", "tied"}))
def test_each_change_is_seen(name):
    net = Net().double()
    net.slots = None
    before, complete = fingerprint(net)
    assert complete
    assert before == fingerprint(net)[0]
    CHANGES[name](net, 1.5)
    assert fingerprint(net)[0] != before


def made(number: int):
    if number % 2:
        return lambda module, args, z: number * z
    return lambda module, args, z: z**2 + number


def test_hooks_of_the_same_id_are_told_apart():
    """The first is forgotten, and the next takes its place in memory."""
    net, ids = nn.Sequential(lin(4, 4), nn.Tanh(), lin(4, 2)).double(), []
    for number in range(1, 9):
        handle = net[0].register_forward_hook(made(number))
        ids.append(id(net[0]._forward_hooks[handle.id]))
        assert_close(empirical_ntk(net, None, X, output="trace"), brute_force(net), rtol=1e-11)
        handle.remove()
    assert len(set(ids)) < len(ids)


@pytest.mark.parametrize("kind", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_global_hooks(kind):
    net = nn.Sequential(lin(4, 4), nn.Tanh(), lin(4, 2)).double()
    empirical_ntk(net, None, X)

    def before(module, args):
        return (args[0] ** 2,) if module is net[0] else None

    def after(module, args, output):
        return output**2 if module is net[0] else None

    handle = getattr(nn.modules.module, kind)(before if "pre" in kind else after)
    try:
        assert_close(empirical_ntk(net, None, X, output="trace"), brute_force(net), rtol=1e-11)
    finally:
        handle.remove()


def test_variables_of_an_enclosing_function():
    net = Net().double()
    net.slots = SimpleNamespace(factor=1.0)
    net.function, change = cell(1.0)
    empirical_ntk(net, None, X)
    change(2.0)
    assert_close(empirical_ntk(net, None, X, output="trace"), brute_force(net), rtol=1e-11)


def test_plans_do_not_pile_up():
    net = Net().double()
    net.slots = None
    for number in range(plans._KEPT + 5):
        net.number = float(number)
        net.slots = SimpleNamespace(factor=1.0)
        empirical_ntk(net, None, X[:1])
    assert len(plans._PLANS[net]) <= plans._KEPT
