"""A plan is made once for a network, and again when something that it depends on has changed."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from closeness import assert_close
from torch import nn

from lazy_lightning.ntk import empirical_ntk, register_rule
from lazy_lightning.ntk import kernel_plan as plans
from lazy_lightning.ntk.layer_rules import _RULES, linear_positions


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2)).double().eval()


@pytest.fixture
def made(monkeypatch):
    """Plans made so far."""
    count = []
    original = plans.make_plan
    monkeypatch.setattr(plans, "make_plan", lambda *given: (count.append(1), original(*given))[1])
    return count


X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)


def jacobian(net: nn.Module) -> torch.Tensor:
    return empirical_ntk(net, None, X, output="trace", method="jacobian")


def test_once_for_any_weights_samples_and_members(made):
    net = network()
    empirical_ntk(net, None, X)
    weights = torch.randn(3, sum(p.numel() for p in net.parameters()), dtype=torch.float64)
    empirical_ntk(net, weights, X[:4], output="trace")
    assert len(made) == 1


def halve(module, args, output):
    return output / 2


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


CHANGES = {
    "hook": lambda net: net[0].register_forward_hook(halve),
    "module": lambda net: net.__setitem__(3, Doubled(5, 2).double()),
    "method": lambda net: setattr(net[0], "forward", lambda x: 3 * nn.functional.linear(x, net[0].weight)),
    "tied": lambda net: setattr(net[1], "extra", net[0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_again_after_a_change_of_the_network(made, change):
    net = network()
    empirical_ntk(net, None, X)
    CHANGES[change](net)
    found = empirical_ntk(net, None, X, output="trace")
    assert len(made) == 2
    if change != "tied":
        assert_close(found, jacobian(net), rtol=1e-12)


def test_random_layers_are_refused_whatever_was_planned(made):
    net = network()
    empirical_ntk(net, None, X)
    with pytest.raises(ValueError, match="draws random numbers"):
        empirical_ntk(net.train(), None, X)


def test_again_after_a_new_rule(made, monkeypatch):
    monkeypatch.setitem(_RULES, nn.Bilinear, lambda *_: None)  # restored, and what is registered below with it
    net = network()
    empirical_ntk(net, None, X)
    register_rule(nn.Bilinear, lambda module, a, b: linear_positions(a, b, scale=1.0, bias=0.0))
    empirical_ntk(net, None, X)
    assert len(made) == 2


def test_network_can_be_forgotten():
    net = network()
    empirical_ntk(net, None, X)
    seen = weakref.ref(net)
    del net
    gc.collect()
    assert seen() is None
