"""Derivatives along weights of members whose layers have no forward rule: J dw, second derivatives, companions."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close
from ntk_cases import Lambda, jacobian, lin
from test_kinds_of_networks import KINDS, build
from torch import Tensor, nn

from lazy_lightning.nn.linearize import tangent_outputs
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.ntk.laziness import jacobian_norm, second_derivative_norm

pytestmark = pytest.mark.filterwarnings("ignore:.*performance drop")
LOOPED = {"LSTM", "LSTM, two layers", "GRU", "RNN", "autograd.grad in forward"}
NAMES = sorted(set(KINDS) - {"uint8 made floats inside", "padding tied to the head"})


def members(name: str) -> tuple[MemberNetwork, nn.Module, Tensor, Tensor]:
    net, x = build(name)
    network = MemberNetwork(net, loops=name in LOOPED, needs_graph=name == "autograd.grad in forward")
    own = [p.detach().reshape(-1) for p in net.parameters()]
    w = torch.cat(own)
    return network, net, x, torch.stack([w, 1.1 * w])


def at(net: nn.Module, w: Tensor, x: Tensor) -> Tensor:
    """The Jacobian (n, c, N) at other weights."""
    start = 0
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(w[start : start + p.numel()].view(p.shape))
            start += p.numel()
    return jacobian(net, x)


@pytest.mark.parametrize("name", NAMES)
def test_change_to_first_order(name):
    network, net, x, w = members(name)
    dw = torch.randn(w.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if name == "padding":
        dw[:, :3] = 0.0  # the row that reverse mode leaves out
    found = tangent_outputs(lambda v: network(v, x), w, dw)
    for e in range(2):
        assert_close(found[e], at(net, w[e], x) @ dw[e], rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"sparse embedding"}))
def test_norm_of_the_jacobian(name):
    network, net, x, w = members(name)
    found = jacobian_norm(lambda v, s: network(v, s), w, x)
    for e in range(2):
        expected = torch.linalg.matrix_norm(at(net, w[e], x).flatten(0, 1), 2) / len(x) ** 0.5
        assert float(found[e]) == pytest.approx(float(expected), rel=1e-3)


class NormalisedByFormula(nn.Module):
    """The old weight normalisation of one layer, as a formula."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        self.bias, self.weight_g, self.weight_v = (
            nn.Parameter(p.detach().clone()) for p in (like.bias, like.weight_g, like.weight_v)
        )

    def forward(self, x: Tensor) -> Tensor:
        v = self.weight_v
        return nn.functional.linear(x, v * (self.weight_g / v.square().sum(1, keepdim=True).sqrt()), self.bias)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_second_derivative_of_weight_normalisation_is_that_of_its_formula():
    """The fused operation's own second derivatives are wrong on CPUs, in torch 2.15."""
    old = nn.utils.weight_norm(lin(3, 4)).double()
    nets = [nn.Sequential(part, nn.Tanh(), lin(4, 2)).double() for part in (old, NormalisedByFormula(old))]
    nets[1][2] = nets[0][2]
    x = torch.randn(4, 3, dtype=torch.float64)
    norms = []
    for net in nets:
        network = MemberNetwork(net)
        w = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).unsqueeze(0)
        norms.append(second_derivative_norm(lambda v, s, network=network: network(v, s), w, x))
    assert_close(*norms, rtol=1e-6)


def test_complex_weights_are_refused():
    w = torch.ones(1, 2, dtype=torch.complex128)
    for norm in (jacobian_norm, second_derivative_norm):
        with pytest.raises(ValueError, match="weights are complex"):
            norm(lambda v, x: v * x, w, torch.ones(3, 1))


def test_layers_that_return_several_tensors_are_seen():
    """Attention returns a pair; the first-order model's hooks see it, and its outputs are the same with hooks."""
    from lazy_lightning.nn.linearize import LinearizedNetwork

    part = nn.MultiheadAttention(4, 2, batch_first=True)
    net = Lambda(lambda m, x: m.head(m.part(x, x, x)[0].mean(1)), part=part, head=lin(4, 2)).double()
    model, x, seen = LinearizedNetwork(net), torch.randn(3, 5, 4, dtype=torch.float64), []
    without = model(x)
    model.get_submodule("part").register_forward_hook(lambda module, args, output: seen.append(output))
    assert_close(model(x), without)
    assert_close(seen[0][0], net.part(x, x, x)[0])
    assert_close(seen[0][1], net.part(x, x, x)[1])
