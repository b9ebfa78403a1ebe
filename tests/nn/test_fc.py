import math

import pytest
import torch
from torch.func import functional_call, jvp, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.fc import FC

# Torch's own forward differentiation scripts some decompositions when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

CASES = {
    "reference": {},
    "relu": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "wide against n": {"activation": "swish", "width": 40},
    "biases": {"bias": 0.1, "last_bias": 0.2},
    "biases tanh": {"activation": "tanh", "bias": 0.1, "last_bias": 0.2},
    "mean field": {"head": "mean_field"},
    "mean field bias": {"head": "mean_field", "last_bias": 1.0},
    "linear model": {"depth": 0, "last_bias": 0.5},
    "one layer": {"depth": 1},
    "image, outputs": {"input_shape": (2, 3, 3), "num_outputs": 3},
}


def build(**kwargs):
    torch.manual_seed(0)
    return FC(**{"width": 8, "depth": 3, "input_shape": 6, **kwargs}).double()


def members(net, E, scale=1.0):
    return {k: scale * torch.randn(E, *p.shape, dtype=torch.float64) for k, p in net.named_parameters()}


def by_vmap(net, params, x):
    return vmap(lambda p: functional_call(net, p, (x,)))(params)


def close(actual, expected, rtol=1e-13):
    """Relative to the size of the whole, since single entries may cancel."""
    torch.testing.assert_close(
        actual, expected, rtol=rtol, atol=rtol * max(1e-300, float(expected.detach().abs().max()))
    )


@pytest.fixture(params=CASES)
def net(request):
    return build(**CASES[request.param])


@pytest.fixture
def x(net):
    return torch.randn(11, *net.input_shape, dtype=torch.float64)


@pytest.mark.parametrize("E", [1, 3])
def test_members_equal_vmap(net, x, E):
    params = members(net, E)
    out = net.forward_members(params, x)
    assert out.shape == (E, 11, net.num_outputs)
    close(out, by_vmap(net, params, x))


@pytest.mark.parametrize("E", [1, 3])
def test_member_gradients_equal_vmap(net, x, E):
    params = {k: p.requires_grad_() for k, p in members(net, E).items()}
    cotangent = torch.randn(E, 11, net.num_outputs, dtype=torch.float64)
    fast = torch.autograd.grad(net.forward_members(params, x), list(params.values()), cotangent)
    slow = torch.autograd.grad(by_vmap(net, params, x), list(params.values()), cotangent)
    for a, b in zip(fast, slow, strict=True):
        assert a.is_contiguous()
        close(a, b)


def test_member_jvp_equals_vmap(net, x):
    params, tangent = members(net, 3), members(net, 3)
    fast = jvp(lambda p: net.forward_members(p, x), (params,), (tangent,))
    slow = jvp(lambda p: by_vmap(net, p, x), (params,), (tangent,))
    close(fast[0], slow[0])
    close(fast[1], slow[1])


def test_member_double_backward(net, x):
    params = {k: p.requires_grad_() for k, p in members(net, 2).items()}

    def hessian_norm_grad(forward):
        first = torch.autograd.grad(forward(params).square().sum(), list(params.values()), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(params.values()))

    for a, b in zip(
        hessian_norm_grad(lambda p: net.forward_members(p, x)),
        hessian_norm_grad(lambda p: by_vmap(net, p, x)),
        strict=True,
    ):
        close(a, b, rtol=1e-12)


def test_preactivations(net, x):
    params = members(net, 2)
    kept = net.preactivations_members(params, x)
    assert len(kept) == net.depth
    seen = []
    for layer in net.hidden:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for e in range(2):
        seen.clear()
        functional_call(net, {k: p[e] for k, p in params.items()}, (x,))
        for z, expected in zip(kept, seen, strict=True):
            assert z.shape == (2, 11, net.width)
            close(z[e], expected)


def test_members_do_not_mix(net, x):
    params = members(net, 3)
    params["head.weight"][1] = math.nan
    out = net.forward_members(params, x)
    assert out[1].isnan().all()
    close(out[[0, 2]], by_vmap(net, {k: p[[0, 2]] for k, p in params.items()}, x))


def test_explicit_formula():
    net = build(activation="relu", depth=2)
    x = torch.randn(4, 6, dtype=torch.float64)
    w0, w1, w2 = net.parameters()
    a = math.sqrt(2) * torch.relu(x @ w0.T / math.sqrt(6))
    a = math.sqrt(2) * torch.relu(a @ w1.T / math.sqrt(8))
    close(net(x), a @ w2.T / math.sqrt(8))


def test_mean_field_head_is_the_ntk_head_over_sqrt_width():
    ntk, mean_field = build(), build(head="mean_field")
    x = torch.randn(4, 6, dtype=torch.float64)
    close(mean_field(x) * math.sqrt(8), ntk(x))


def test_variance_is_one_in_every_layer():
    torch.manual_seed(1)
    net = FC(width=300, depth=4, input_shape=50).double()
    params = {k: torch.randn(8, *p.shape, dtype=torch.float64) for k, p in net.named_parameters()}
    x = torch.randn(40, 50, dtype=torch.float64)
    x *= math.sqrt(50) / x.norm(dim=1, keepdim=True)
    for z in net.preactivations_members(params, x):
        assert float(z.square().mean()) == pytest.approx(1.0, abs=0.1)


def test_float32_members():
    net = FC(width=1000, depth=3, input_shape=6)
    params = {k: torch.randn(2, *p.shape) for k, p in net.named_parameters()}
    x = torch.randn(5, 6)
    exact = net.double().forward_members({k: p.double() for k, p in params.items()}, x.double())
    torch.testing.assert_close(net.float().forward_members(params, x).double(), exact, rtol=1e-4, atol=1e-5)


def test_names_and_seed():
    net = build(bias=1.0, last_bias=1.0, depth=2)
    names = [f"{layer}.{kind}" for layer in ("hidden.0", "hidden.1", "head") for kind in ("weight", "bias")]
    assert [name for name, _ in net.named_parameters()] == names
    for p, q in zip(net.parameters(), build(bias=1.0, last_bias=1.0, depth=2).parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"input_shape": None}, "input_shape is None"),
        ({"input_shape": 0}, "input_shape is"),
        ({"input_shape": ()}, "input_shape is"),
        ({"width": 0}, "width is 0"),
        ({"depth": -1}, "depth is -1"),
        ({"num_outputs": 0}, "num_outputs is 0"),
        ({"head": "last"}, "head is 'last'"),
        ({"activation": "selu"}, "unknown activation"),
        ({"bias": -1.0}, "bias"),
    ],
)
def test_bad_settings(kwargs, words):
    with pytest.raises(ConfigError, match=words):
        build(**kwargs)


def test_samples_of_another_shape():
    with pytest.raises(ConfigError, match=r"\(5,\) came to a network built for \(6,\)"):
        build()(torch.zeros(2, 5, dtype=torch.float64))
