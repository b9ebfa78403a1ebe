"""What the trial of structure finds does not depend on what the data begin with, nor on zeros."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from ntk_cases import Lambda, contracted, jacobian, lin
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_diagonal
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.tangent_model import TangentModel

FEW = settings(max_examples=20, deadline=None)


def tied() -> nn.Module:
    return Lambda(
        lambda m, x: m.head(F.linear(torch.tanh(m.enc(x)), m.enc.weight.T)),
        enc=lin(3, 4, bias=False),
        head=lin(3, 2, bias=False),
    )


def gated(threshold: float) -> nn.Module:
    """The second use of the weight shows at inputs above a threshold alone."""
    return Lambda(
        lambda m, x: m.head(m.body(x).tanh()) + F.relu(x - threshold) @ m.body.weight[:2].T,
        body=lin(3, 4),
        head=lin(4, 2),
    )


def twice() -> nn.Module:
    return Lambda(lambda m, x: m.head(m.body(m.body(x).relu()).relu()), body=lin(3, 3, bias=False), head=lin(3, 2))


def by_output() -> nn.Module:
    """The second output uses the weight of the first one's layer by itself."""
    return Lambda(
        lambda m, x: torch.stack([m.one(x.tanh())[:, 0], F.linear(x, m.one.weight)[:, 0].sin()], dim=1),
        one=lin(3, 1, bias=False),
    )


TOKENS = {
    "tokens tied to the head": lambda: Lambda(
        lambda m, x: F.linear(m.mix(m.embed(x).mean(1)).tanh(), m.embed.weight)[:, :2] + m.out(m.embed(x).sum(1)),
        embed=nn.Embedding(5, 3, padding_idx=0),
        mix=lin(3, 3, bias=False),
        out=lin(3, 2, bias=False),
    ),
    "mixing weight shared by hand": lambda: Lambda(
        lambda m, x: F.linear(m.mix(m.embed(x).mean(1)).tanh(), m.mix.weight),
        embed=nn.Embedding(5, 3, padding_idx=0),
        mix=lin(3, 3, bias=False),
    ),
}
FLOATS = {"tied": tied, "gated": lambda: gated(0.5), "called twice, relu": twice, "by output": by_output}


def check(net: nn.Module, x: Tensor) -> None:
    own = jacobian(net, x)
    expected = contracted(own, own, "full")
    scale = float(expected.abs().max()) + 1e-12
    for method in ("auto", "jacobian", "jvp"):
        assert_close(empirical_ntk(net, None, x, method=method), expected, scale=scale, rtol=1e-11)
    diagonal = expected.diagonal(dim1=0, dim2=1).movedim(-1, 0)
    assert_close(empirical_ntk_diagonal(net, None, x), diagonal, scale=scale, rtol=1e-11)
    try:
        found = empirical_ntk(net, None, x, method="structured")
    except ConfigError:
        return
    assert_close(found, expected, scale=scale, rtol=1e-11)


@st.composite
def floats_with_zeros(draw):
    """Samples that begin with any number of zeros, of any scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 99)))
        net = FLOATS[draw(st.sampled_from(sorted(FLOATS)))]().double()
        x = torch.randn(draw(st.integers(1, 6)), 3, dtype=torch.float64) * draw(st.sampled_from([0.1, 1.0, 10.0]))
    x[: draw(st.integers(0, len(x)))] = 0.0
    return net, x


@FEW
@given(floats_with_zeros())
def test_whatever_the_data_begin_with(pair):
    check(*pair)


@FEW
@given(st.sampled_from(sorted(TOKENS)), st.integers(0, 4), st.integers(0, 99))
def test_tokens_that_begin_with_padding(name, zeros, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, x = TOKENS[name]().double(), torch.randint(0, 5, (5, 4))
    x[:zeros] = 0
    check(net, x)


def test_the_plan_at_zeros_holds_for_other_samples():
    net, x = tied().double(), torch.randn(6, 3, dtype=torch.float64)
    empirical_ntk(net, None, torch.zeros_like(x))
    check(net, x)


def test_a_layer_without_any_gradient_is_not_taken_for_structured():
    """Its weight matters above a threshold that no trial reaches."""
    net = Lambda(lambda m, x: m.head(x) + F.relu(m.body(x).sum(1, keepdim=True) - 1e4), body=lin(3, 2), head=lin(3, 2))
    plan = make_plan(TangentModel.of(net.double()), torch.ones(4, 3, dtype=torch.float64))
    assert plan.structured == ("head",)
    assert "has no gradient at any input" in plan.reasons["body"]


def test_samples_of_very_different_size_are_compared_alike():
    """The second use is small beside the first at the largest sample, and not at the others."""
    net = Lambda(
        lambda m, x: m.head(m.body(x)) + torch.sin(x @ m.body.weight.T)[:, :2], body=lin(3, 4), head=lin(4, 2)
    ).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    x[3] *= 1e7
    check(net, x[[0, 1, 2, 4]])
    assert "body" in make_plan(TangentModel.of(net), x).jacobian


def test_domains_of_a_network_are_kept_to():
    """Random numbers are outside of it; the data's own values, in another arrangement, are not."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        if bool((x <= 0).any()):
            raise ValueError("positive numbers please")
        return m.head(m.body(x.log()).tanh())

    net = Lambda(forward, body=lin(3, 4), head=lin(4, 2)).double()
    x = torch.rand(5, 3, dtype=torch.float64) + 0.1
    assert make_plan(TangentModel.of(net), x).structured == ("body", "head")
    own = jacobian(net, x)
    assert_close(empirical_ntk(net, None, x), contracted(own, own, "full"), rtol=1e-12)


# ---------------------------------------------------------------------- samples that depend on each other

MIXING = {
    "minus the mean": lambda x: x - x.mean(0),
    "where inputs are not zero": lambda x: x * (1 + x.abs().max()),
    "by position": lambda x: x * torch.arange(1.0, len(x) + 1, dtype=x.dtype).unsqueeze(1),
    "with the neighbour": lambda x: x + 0.1 * x.roll(1, 0),
    "in batches of two": lambda x: x - x.mean(0) if len(x) == 2 else x,
    "in batches of many": lambda x: x - x.mean(0) if len(x) > 20 else x,
    "in batches of this size": lambda x: x - x.mean(0) if len(x) == 24 else x,
}


@pytest.mark.parametrize("zero_head", [False, True])
@pytest.mark.parametrize("name", MIXING)
def test_samples_that_depend_on_each_other_are_refused(name, zero_head):
    net = Lambda(lambda m, x: m.head(MIXING[name](m.body(x)).tanh()), body=lin(3, 4), head=lin(4, 2)).double()
    if zero_head:
        nn.init.zeros_(net.head.weight)
    x = torch.randn(24, 3, dtype=torch.float64)
    x[:10] = 0.0
    for ask in (
        lambda: empirical_ntk(net, None, x, output="trace"),
        lambda: empirical_ntk(net, None, x, method="jvp"),
        lambda: NTKOperator(net, None, x),
    ):
        with pytest.raises(ConfigError, match="another output for a sample when others are in the batch"):
            ask()


def test_a_larger_batch_is_looked_at_when_it_comes():
    net = Lambda(lambda m, x: m.head(MIXING["in batches of many"](m.body(x))), body=lin(3, 4), head=lin(4, 2)).double()
    x = torch.randn(24, 3, dtype=torch.float64)
    empirical_ntk(net, None, x[:8])
    with pytest.raises(ConfigError, match="when others are in the batch"):
        empirical_ntk(net, None, x)


class Cancelling(nn.Module):
    """Two equal networks that are subtracted, whose sums have different orders: f is nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Sequential(nn.Linear(7, 33), nn.ReLU(), nn.Linear(33, 1)) for _ in range(2))
        self.other.load_state_dict(self.one.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) - self.other(x.flip(0)).flip(0) + 1e-17 * torch.arange(len(x))[:, None]


@pytest.mark.parametrize("method", ["auto", "jacobian", "jvp"])
def test_outputs_that_are_nothing_but_rounding_are_no_sign_of_coupled_samples(method):
    """The doubling trick gives f(w0, x) = 0; rounding there differs between a sample alone and in a batch."""
    torch.manual_seed(0)
    model, x = Cancelling().double(), torch.randn(23, 7, dtype=torch.float64)
    params = dict(model.named_parameters())
    gradients = [torch.autograd.grad(model(x)[i, 0], model.parameters()) for i in range(23)]
    rows = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])
    found = empirical_ntk(model, params, x, method=method).squeeze()
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-10, atol=1e-12)
