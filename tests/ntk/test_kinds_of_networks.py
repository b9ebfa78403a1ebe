"""Layers, memory formats and inputs that people use: the kernel of autograd, or one sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from ntk_cases import Lambda, contracted, jacobian, lin
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_diagonal


def images() -> Tensor:
    return torch.randn(4, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def points(*shape: int) -> Tensor:
    return torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Softplus(), nn.Conv2d(4, 2, 2, groups=2), nn.Flatten(), lin(8, 2)
    )


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.utils.weight_norm(lin(6, 4), dim=None), nn.Tanh(), lin(4, 2)
        )


def attention() -> nn.Module:
    part = nn.MultiheadAttention(4, 2, batch_first=True)
    return Lambda(lambda m, x: m.head(m.part(x, x, x)[0].mean(1)), part=part, head=lin(4, 2))


def fused_attention() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).chunk(3, dim=-1)
        return m.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))

    return Lambda(forward, qkv=lin(4, 12), head=lin(4, 2))


def informed_by_physics() -> nn.Module:
    """Its outputs hold the derivative of a network by its inputs."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            u = m.net(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return torch.cat([u, slope], dim=1)

    return Lambda(forward, net=nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 1)))


def recurrent(kind: type[nn.Module], **options: object) -> nn.Module:
    body = kind(3, 2, batch_first=True, **options)
    width = 2 * (2 if options.get("bidirectional") else 1)
    return Lambda(lambda m, x: m.head(m.body(x)[0][:, -1]), body=body, head=lin(width, 2))


def tokens(**options: object) -> nn.Module:
    return Lambda(lambda m, x: m.head(m.embed(x).mean(1).tanh()), embed=nn.Embedding(5, 3, **options), head=lin(3, 2))


KINDS = {
    "channels last": (lambda: cnn().to(memory_format=torch.channels_last), images),
    "channels last inputs": (cnn, lambda: images().to(memory_format=torch.channels_last)),
    "both": (
        lambda: cnn().to(memory_format=torch.channels_last),
        lambda: images().to(memory_format=torch.channels_last),
    ),
    "not contiguous": (cnn, lambda: images().transpose(2, 3)),
    "LSTM": (lambda: recurrent(nn.LSTM), lambda: points(3, 3)),
    "LSTM, two layers": (lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True), lambda: points(3, 3)),
    "GRU": (lambda: recurrent(nn.GRU), lambda: points(3, 3)),
    "RNN": (lambda: recurrent(nn.RNN), lambda: points(3, 3)),
    "multi-head attention": (attention, lambda: points(3, 4)),
    "scaled_dot_product_attention": (fused_attention, lambda: points(3, 4)),
    "old weight_norm": (old_weight_norm, lambda: points(1, 3)),
    "autograd.grad in forward": (informed_by_physics, lambda: points(3)),
    "sparse embedding": (lambda: tokens(sparse=True), lambda: torch.arange(12).view(4, 3) % 5),
    "padding": (lambda: tokens(padding_idx=0), lambda: torch.arange(12).view(4, 3) % 5),
    "padding tied to the head": (
        lambda: Lambda(
            lambda m, x: F.linear(m.embed(x).sum(1), m.embed.weight), embed=nn.Embedding(5, 3, padding_idx=0)
        ),
        lambda: torch.arange(12).view(4, 3) % 5,
    ),
    "uint8 made floats inside": (
        lambda: Lambda(lambda m, x: m.head(x.double() / 255), head=lin(3, 2)),
        lambda: torch.arange(12, dtype=torch.uint8).view(4, 3),
    ),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, samples = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make().double(), samples()


@pytest.mark.parametrize("name", KINDS)
def test_every_method_equals_autograd(name):
    net, x = build(name)
    own = jacobian(net, x)
    expected = contracted(own, own, "full")
    for method in ("auto", "jacobian", "jvp"):
        assert_close(empirical_ntk(net, None, x, method=method), expected, rtol=1e-12)
    diagonal = empirical_ntk_diagonal(net, None, x, output="trace")
    assert_close(diagonal, torch.einsum("iikk->i", expected), rtol=1e-12)
    operator = NTKOperator(net, None, x)
    v = torch.linspace(-1, 1, operator.shape[1], dtype=torch.float64)
    assert_close(operator @ v, expected.transpose(1, 2).reshape(operator.shape) @ v, rtol=1e-11)


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"uint8 made floats inside"}))
def test_first_order_model_equals_autograd(name):
    net, x = build(name)
    own, start = jacobian(net, x), net(x).detach()
    model = LinearizedNetwork(net)
    seen = []
    for part in model.modules():
        if part is not model and type(part).__name__ == "_Layer":
            part.register_forward_hook(lambda module, args, output: seen.append(output))
    change = 0.1 * torch.randn(own.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    start_of_part = 0
    with torch.no_grad():
        for p in model.parameters():
            p += change[start_of_part : start_of_part + p.numel()].view(p.shape)
            start_of_part += p.numel()
    assert_close(model(x), start + own @ change, rtol=1e-12)
    assert seen
    model(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.to_dense().isfinite().all()) for p in model.parameters())


@pytest.mark.filterwarnings("ignore:.*performance drop")
def test_what_can_be_differentiated_once_alone_has_a_kernel_and_no_first_order_model():
    net = Lambda(lambda m, x: m.head(m.bag(x)), bag=nn.EmbeddingBag(5, 3), head=lin(3, 2)).double()
    x = torch.arange(12).view(4, 3) % 5
    own = jacobian(net, x)
    assert_close(empirical_ntk(net, None, x), contracted(own, own, "full"), rtol=1e-12)
    for ask in (lambda: empirical_ntk(net, None, x, method="jvp"), lambda: LinearizedNetwork(net)(x)):
        with pytest.raises(ConfigError, match="cannot be differentiated"):
            ask()


# ---------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: list(x),
        lambda x: tuple(x),
        lambda x: x.numpy()[::-1][::-1],
    ],
)
@pytest.mark.parametrize("ask", [empirical_ntk, empirical_ntk_diagonal])
def test_arrays_and_lists(convert, ask):
    net, x = nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 2)).double(), points(3)
    assert_close(ask(net, None, convert(x)), ask(net, None, x), rtol=0.0)
    assert_close(empirical_ntk(net, None, x, convert(x[:2])), empirical_ntk(net, None, x, x[:2]), rtol=0.0)
    assert_close(
        NTKOperator(net, None, convert(x)) @ torch.ones(8), NTKOperator(net, None, x) @ torch.ones(8), rtol=0.0
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_where_the_network_wants_floats(dtype):
    net = nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 2))
    with pytest.raises(ConfigError, match=r"samples of shape \(3,\) and torch.* as floats"):
        empirical_ntk(net, None, torch.ones(4, 3, dtype=dtype))


@pytest.mark.parametrize("x", ["words", [[1.0, 2.0], [1.0]], 3.0, np.array([object()]), None, torch.tensor(1.0)])
def test_what_is_no_samples(x):
    with pytest.raises(ConfigError, match=r"samples came as|no samples"):
        empirical_ntk(lin(3, 2), None, x)


def test_layers_without_shape_yet():
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2))
    with pytest.raises(ConfigError, match=r"0\.weight.* have no shape yet: evaluate the network"):
        empirical_ntk(net, None, torch.ones(3, 3))
    net(torch.ones(1, 3))
    own = jacobian(net, torch.ones(3, 3))
    assert_close(empirical_ntk(net, None, torch.ones(3, 3)), contracted(own, own, "full"))
