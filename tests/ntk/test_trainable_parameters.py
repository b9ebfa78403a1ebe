"""Frozen parameters are counted by no method; complex ones are refused, and complex constants change nothing."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from ntk_cases import Lambda, contracted, lin
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import FC
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.tangent_model import TangentModel

METHODS = ("auto", "jacobian", "jvp")
FEW = settings(max_examples=15, deadline=None)


def jacobian_of(net: nn.Module, x: Tensor, names: set[str]) -> Tensor:
    """(n, c, P) by one backward pass each, with respect to the named parameters alone."""
    weights = [p for name, p in net.named_parameters() if name in names]
    rows = []
    for sample in x:
        for value in net(sample.unsqueeze(0)).reshape(-1):
            grads = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).view(len(x), -1, len(rows[0]))


BUILT = {
    "linear": lambda: nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 3), nn.Softplus(), lin(3, 2)),
    "bundled": lambda: FC(4, 2, bias=0.3, last_bias=0.2, input_shape=3, num_outputs=2),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Conv1d(2, 2, 2, groups=2), nn.Flatten(), lin(2, 2)
    ),
    "tied": lambda: Lambda(
        lambda m, x: m.head(torch.nn.functional.linear(m.body(x).tanh(), m.body.weight.T)),
        body=lin(3, 4),
        head=lin(3, 2),
    ),
    "called twice": lambda: Lambda(
        lambda m, x: m.head(m.body(m.body(x).tanh()).tanh()), body=lin(3, 3), head=lin(3, 2)
    ),
}


@st.composite
def partly_frozen(draw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 99)))
        net = BUILT[draw(st.sampled_from(sorted(BUILT)))]().double()
        x = torch.randn(draw(st.integers(1, 4)), 3, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]
    kept = draw(st.sets(st.sampled_from(names), min_size=1))
    for name, p in net.named_parameters():
        p.requires_grad_(name in kept)
        if draw(st.booleans()) and draw(st.booleans()):
            nn.init.zeros_(p)
    return net, x, kept


@FEW
@given(partly_frozen())
def test_frozen_parameters_are_counted_by_no_method(given_case):
    net, x, kept = given_case
    own = jacobian_of(net, x, kept)
    expected, scale = contracted(own, own, "full"), float(contracted(own, own, "full").abs().max()) + 1e-12
    for method in METHODS:
        assert_close(empirical_ntk(net, None, x, method=method), expected, scale=scale, rtol=1e-12)
    parts = empirical_ntk_by_layer(net, None, x)
    assert set(parts) == {name.rpartition(".")[0] for name in kept}
    assert_close(sum(parts.values()), expected, scale=scale, rtol=1e-12)
    diagonal = empirical_ntk_diagonal(net, None, x)
    assert_close(diagonal, expected.diagonal(dim1=0, dim2=1).movedim(-1, 0), scale=scale, rtol=1e-12)
    operator = NTKOperator(net, None, x)
    v = torch.linspace(-1, 1, operator.shape[1], dtype=torch.float64)
    full = expected.transpose(1, 2).reshape(operator.shape)
    assert_close(operator @ v, full @ v, scale=scale, rtol=1e-11)
    assert_close(empirical_ntk(LinearizedNetwork(net), None, x), expected, scale=scale, rtol=1e-12)


@pytest.mark.parametrize("kept", [{"0.weight"}, {"0.bias"}, {"0.weight", "2.bias"}])
@pytest.mark.parametrize(
    "make", [BUILT["linear"], lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.Tanh(), nn.Conv1d(4, 2, 1), nn.Flatten())]
)
def test_a_layer_of_which_a_part_is_trainable_keeps_its_structure(make, kept):
    net = make().double()
    for name, p in net.named_parameters():
        p.requires_grad_(name in kept)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x if isinstance(net[0], nn.Linear) else x.unsqueeze(-1)
    assert not make_plan(TangentModel.of(net), x).jacobian
    own = jacobian_of(net, x, kept)
    assert_close(empirical_ntk(net, None, x, method="structured"), contracted(own, own, "full"), rtol=1e-12)


def test_weights_of_members_may_leave_frozen_parameters_out_or_hold_them():
    net = BUILT["linear"]().double()
    net[4].requires_grad_(False)
    x = torch.randn(3, 3, dtype=torch.float64)
    expected = empirical_ntk(net, None, x)
    every = nn.utils.parameters_to_vector(net.parameters()).detach()
    trainable = torch.cat([p.detach().flatten() for p in net.parameters() if p.requires_grad])
    named = dict(net.named_parameters())
    for params in (every, trainable, named, {name: p for name, p in named.items() if p.requires_grad}):
        assert_close(empirical_ntk(net, params, x), expected)
    two = torch.stack([every, 2 * every])
    doubled = BUILT["linear"]().double()
    nn.utils.vector_to_parameters(2 * every, doubled.parameters())
    doubled[4].requires_grad_(False)
    assert_close(empirical_ntk(net, two, x)[1], empirical_ntk(doubled, None, x))
    members = MemberNetwork(net)
    frozen = {"4.weight": torch.stack([net[4].weight, 2 * net[4].weight]).detach()}
    frozen["4.bias"] = torch.stack([net[4].bias, 2 * net[4].bias]).detach()
    found = empirical_ntk(members, torch.stack([trainable, 2 * trainable]), x, buffers=frozen)
    assert_close(found, empirical_ntk(net, two, x))


@pytest.mark.parametrize("ask", [empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal, NTKOperator])
def test_nothing_trainable_is_refused(ask):
    net = BUILT["linear"]().requires_grad_(False)
    with pytest.raises(ConfigError, match="has no parameters with requires_grad"):
        ask(net, None, torch.ones(2, 3))


# ---------------------------------------------------------------------- complex numbers


class Spectral(nn.Module):
    """A filter in Fourier space between two linear layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.last = lin(3, 4), lin(4, 2)
        weight = torch.randn(3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
        if kind == "buffer":
            self.register_buffer("filter", weight)
        elif kind == "pair":
            self.pair = nn.Parameter(torch.view_as_real(weight).clone())
        else:
            self.filter = nn.Parameter(weight, requires_grad=kind == "trainable")

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.view_as_complex(self.pair) if hasattr(self, "pair") else self.filter
        return self.last(torch.fft.irfft(torch.fft.rfft(self.first(x).tanh()) * weight, n=4).tanh())


@FEW
@given(st.sampled_from(["buffer", "frozen", "pair"]), st.integers(1, 4), st.integers(0, 99))
def test_complex_constants_and_pairs_of_reals_are_right(kind, samples, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, x = Spectral(kind).double(), torch.randn(samples, 3, dtype=torch.float64)
    own = jacobian_of(net, x, {name for name, p in net.named_parameters() if p.requires_grad})
    for method in METHODS:
        assert_close(empirical_ntk(net, None, x, method=method), contracted(own, own, "full"), rtol=1e-12)


@pytest.mark.parametrize("ask", [empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal, NTKOperator])
@pytest.mark.parametrize("method", ["auto", "jacobian", "structured"])
def test_complex_parameters_are_refused(ask, method):
    options = {} if ask is NTKOperator else {"method": method}
    with pytest.raises(ConfigError, match=r"parameter filter .*Spectral is complex.*view_as_complex"):
        ask(Spectral("trainable"), None, torch.ones(2, 3), **options)


def test_complex_parameters_have_no_first_order_model():
    with pytest.raises(ConfigError, match="parameter filter of the network Spectral is complex"):
        LinearizedNetwork(Spectral("trainable"))


def test_complex_outputs_are_refused():
    net = Lambda(lambda m, x: torch.fft.rfft(m.body(x)), body=lin(3, 3))
    with pytest.raises(ConfigError, match=r"complex numbers.*view_as_real"):
        empirical_ntk(net, None, torch.ones(2, 3))
