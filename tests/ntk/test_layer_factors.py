"""Factors of a layer's Jacobian against the Jacobian itself, and rules that users teach."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from ntk_cases import contracted, jacobian, lin
from torch import nn

from lazy_lightning.ntk import empirical_ntk, factors, register_rule
from lazy_lightning.ntk.factors import Dense, Outer, concatenated
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.layer_rules import _RULES, convolution_positions, linear_positions
from lazy_lightning.ntk.tangent_model import TangentModel

CONTRACTIONS = pytest.mark.parametrize("contraction", ["full", "diagonal", "trace"])
# Members, whether inputs are shared, outputs, groups, positions on either side.
SHAPES = [
    (1, True, 2, 1, 1, 1),
    (2, False, 3, 1, 1, 1),
    (2, True, 2, 1, 4, 4),
    (3, False, 1, 2, 3, 5),
    (2, True, 2, 3, 1, 2),
]


def outer(members, shared, outputs, groups, positions, samples, seed):
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(1 if shared else members, samples, groups, positions, 3, dtype=torch.float64, generator=draw)
    b = torch.randn(members, samples, outputs, groups, positions, 2, dtype=torch.float64, generator=draw)
    return Outer(a, b)


def sides(shape):
    *kind, here, there = shape
    return outer(*kind, here, 4, 0), outer(*kind, there, 3, 1)


def expected(left, right, contraction):
    return torch.stack([contracted(u, v, contraction) for u, v in zip(left.dense(), right.dense(), strict=True)])


@pytest.mark.parametrize("shape", SHAPES)
@CONTRACTIONS
@pytest.mark.parametrize("scratch", [1, 100, 1 << 23])
def test_products_are_those_of_the_jacobians(shape, contraction, scratch, monkeypatch):
    monkeypatch.setattr(factors, "_SCRATCH_ELEMENTS", scratch)
    left, right = sides(shape)
    jacobians = Dense(left.dense()), Dense(right.dense())
    for one, other in itertools.product((left, jacobians[0]), (right, jacobians[1])):
        assert_close(one.product(other, contraction), expected(left, right, contraction))


@pytest.mark.parametrize("shape", SHAPES)
@CONTRACTIONS
def test_own_products_are_the_diagonal_of_products(shape, contraction):
    left, _ = sides(shape)
    own = left.product(left, contraction).diagonal(dim1=1, dim2=2).movedim(-1, 1)
    assert_close(left.own_products(contraction), own)
    assert_close(Dense(left.dense()).own_products(contraction), own)


@pytest.mark.parametrize("shape", SHAPES)
@CONTRACTIONS
def test_samples_are_cut_and_put_together(shape, contraction):
    left, right = sides(shape)
    for held in (left, left.cheapest(contraction), Dense(left.dense())):
        whole = concatenated([held[:1], held[1:3], held[3:]])
        assert type(whole) is type(held)
        assert_close(whole.product(right, contraction), expected(left, right, contraction))
        assert held.nbytes == sum(t.numel() * 8 for t in held.tensors())


# Positions, features p and q, and whether the Jacobian (of p q numbers an output) costs less than positions squared.
COSTS = [(1, 3, 3, False), (2, 300, 300, False), (400, 3, 3, True), (400, 300, 300, True), (8, 300, 300, False)]


@pytest.mark.parametrize(("positions", "p", "q", "formed"), COSTS)
def test_the_jacobian_is_formed_where_that_costs_less(positions, p, q, formed):
    held = Outer(torch.zeros(1, 1, 1, positions, p), torch.zeros(1, 1, 1, 1, positions, q))
    assert isinstance(held.cheapest("trace"), Dense) == formed


class Scaled(nn.Conv2d):
    """A convolution in NTK parametrisation: s w * x + 0.3 b."""

    scale = 0.25

    def forward(self, x):
        return self._conv_forward(x, self.scale * self.weight, 0.3 * self.bias)


class Row(nn.Linear):
    """Of another type than linear layers, though it computes the same."""


@pytest.fixture(autouse=True)
def forget_rules():
    before = dict(_RULES)
    yield
    _RULES.clear()
    _RULES.update(before)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            Scaled(2, 3, 2, padding=1, stride=2), nn.Tanh(), nn.Flatten(), Row(12, 3), nn.Tanh(), lin(3, 2)
        ).double()


def planned(net, x):
    return make_plan(TangentModel.of(net), x).structured


def samples():
    return torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def taught():
    register_rule(Scaled, lambda m, a, b: convolution_positions(m, a, b, scale=m.scale, bias=0.3))
    register_rule(Row, lambda m, a, b: linear_positions(a, b, scale=1.0, bias=1.0))


def test_a_taught_rule_is_used():
    net, x = network(), samples()
    assert planned(net, x) == ("5",)
    taught()
    assert planned(net, x) == ("0", "3", "5")
    assert_close(empirical_ntk(net, None, x), contracted(jacobian(net, x), jacobian(net, x), "full"), rtol=1e-13)


WRONG = [
    lambda m, a, b: linear_positions(a, b, scale=1.0 + 1e-6, bias=1.0),
    lambda m, a, b: linear_positions(a, b, scale=1.0, bias=0.0),
    lambda m, a, b: linear_positions(a, b.flip(2), scale=1.0, bias=1.0),
    lambda m, a, b: linear_positions(a, b.flip(1), scale=1.0, bias=1.0),
    lambda m, a, b: linear_positions(a * torch.nan, b, scale=1.0, bias=1.0),
]


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_rule_costs_time_and_never_a_wrong_kernel(rule):
    net, x = network(), samples()
    taught()
    register_rule(Row, rule)
    assert planned(net, x) == ("0", "5")
    assert_close(empirical_ntk(net, None, x), contracted(jacobian(net, x), jacobian(net, x), "full"), rtol=1e-13)


def test_rules_are_for_a_type_itself_and_not_for_those_derived():
    class Other(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.abs(), self.bias)

    net, x = nn.Sequential(lin(3, 4), nn.Tanh(), Other(4, 2)).double(), torch.ones(2, 3, dtype=torch.float64)
    assert planned(net, x) == ("0",)
