"""Small networks for the tangent kernel: all that people put into networks, and which layers then have structure."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lazy_lightning.nn import FC
from lazy_lightning.nn.linearize import LinearizedNetwork


@dataclass(frozen=True)
class Case:
    """A network, the shape of a sample, and the layers whose Jacobian must be formed since they have no structure."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    jacobian: tuple[str, ...] = ()
    tokens: int = 0
    """Samples are integers below this."""
    members: bool = True
    """Whether torch can map it over members."""

    def network(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Every call gives the same weights, none of them zero."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            net = self.build().to(dtype)
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(0.3 * torch.randn(p.shape, dtype=torch.float64).to(dtype))
        return net

    def samples(self, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """(count, *shape)"""
        draw = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, self.tokens, (count, *self.shape), generator=draw)
        return torch.randn(count, *self.shape, generator=draw, dtype=torch.float64).to(dtype)

    def pairs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """x1 and x2."""
        return self.samples(5, 1, dtype), self.samples(4, 2, dtype)


def jacobian(net: nn.Module, x: Tensor, names: list[str] | None = None) -> Tensor:
    """(n, c, P), each sample alone, each output by a backward pass of its own: nothing of torch.func, no hooks."""
    named = dict(net.named_parameters())
    weights = [p.requires_grad_() for name, p in named.items() if names is None or name in names]
    rows = []
    for sample in x:
        outputs = net(sample.unsqueeze(0)).reshape(-1)
        for value in outputs + 0 * sum(w.sum() for w in weights):  # which depends on all, so that unused ones will do
            grads = torch.autograd.grad(value, weights, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).view(len(x), -1, len(rows[0]))


def contracted(left: Tensor, right: Tensor, output: str) -> Tensor:
    """The kernel of two Jacobians (n, c, P), by the definition."""
    full = torch.einsum("ikp,jlp->ijkl", left, right)
    diagonal = full.diagonal(dim1=2, dim2=3)
    return {"full": full, "diagonal": diagonal, "trace": diagonal.sum(-1), "mean": diagonal.mean(-1)}[output]


class Lambda(nn.Module):
    """Some layers and what is done with them."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


class Doubled(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) ** 2


class PreActivation(nn.Module):
    """The residual block that normalises first."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.one = norm(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second, self.two = norm(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.short, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.one(F.silu(self.first(x)))
        z = self.two(F.silu(self.second(z))) + self.short(x)
        return self.head(z.mean((2, 3)))


class Residual(nn.Module):
    """A residual block as torchvision writes it: the relu works in place, also on the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.downsample = nn.Sequential(nn.Conv2d(2, 3, 1, stride=2, bias=False), nn.BatchNorm2d(3))
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        return self.fc(self.relu(out).mean((2, 3)))


def with_statistics(net: nn.Module) -> nn.Module:
    """In evaluation mode, with running statistics that are not the default."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def recurrent() -> nn.Module:
    """An LSTM over three times."""
    return Lambda(lambda m, x: m.head(m.body(x)[0][:, -1]), body=nn.LSTM(3, 2, batch_first=True), head=lin(2, 2))


def cnn(*layers: nn.Module, features: int) -> nn.Module:
    """Convolutions, each followed by a smooth activation, and a head of two outputs."""
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Softplus())), nn.Flatten(), lin(features, 2))


def lin(*sizes: int, **options: bool) -> nn.Linear:
    return nn.Linear(*sizes, **options)


def _tied_modules() -> nn.Module:
    net = Lambda(lambda m, x: m.head(m.decoder(m.encoder(x).tanh()).tanh()), encoder=lin(3, 3), decoder=lin(3, 3))
    net.decoder.weight = net.encoder.weight
    net.head = lin(3, 2)
    return net


def _one_module_two_names() -> nn.Module:
    body = lin(3, 3)
    return Lambda(lambda m, x: m.head(m.b(m.a(x).tanh()).tanh()), a=body, b=body, head=lin(3, 2))


def _hooked(kind: str) -> nn.Module:
    net = nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 2))
    if kind == "before":
        net[0].register_forward_pre_hook(lambda module, args: (args[0] ** 2,))
    else:
        net[0].register_forward_hook(lambda module, args, output: output**2)
    return net


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(lin(3, 4)), nn.Tanh(), lin(4, 2))


def _attention() -> nn.Module:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    return Lambda(
        lambda m, x: m.head(m.attention(x, x, x, need_weights=False)[0].mean(1)), attention=attention, head=lin(4, 2)
    )


def _weight_as_buffer() -> nn.Module:
    layer = lin(3, 4)
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)
    return nn.Sequential(layer, nn.Tanh(), lin(4, 2))


def _without_gradient() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = m.body(x)
        return m.head(features.tanh()) + m.side(x).detach()

    return Lambda(forward, body=lin(3, 4), side=lin(3, 2), head=lin(4, 2))


def _linearized() -> nn.Module:
    return LinearizedNetwork(FC(4, 1, input_shape=3, num_outputs=2, bias=0.2).double())


_MLP_SHAPE, _IMAGE = (3,), (2, 6, 5)

CASES: dict[str, Case] = {
    "fc with biases and three outputs": Case(
        functools.partial(FC, 5, 2, bias=0.3, last_bias=0.1, input_shape=4, num_outputs=3), (4,)
    ),
    "fc deep, one output, relu": Case(functools.partial(FC, 6, 3, activation="relu", input_shape=4), (4,)),
    "fc of depth 0": Case(functools.partial(FC, 5, 0, last_bias=0.5, input_shape=4, num_outputs=2), (4,)),
    "fc mean field on images": Case(functools.partial(FC, 5, 1, head="mean_field", input_shape=(1, 2, 3)), (1, 2, 3)),
    "one linear layer": Case(lambda: lin(3, 2), _MLP_SHAPE),
    "plain linear": Case(
        lambda: nn.Sequential(lin(3, 5), nn.Tanh(), lin(5, 4, bias=False), nn.GELU(), lin(4, 2)), (3,)
    ),
    "outputs without their axis": Case(
        lambda: nn.Sequential(lin(3, 5), nn.Tanh(), lin(5, 1), nn.Flatten(0)), _MLP_SHAPE
    ),
    "stride and padding": Case(
        lambda: cnn(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 3, (2, 3), padding=(0, 1)), features=18),
        _IMAGE,
    ),
    "same padding, even kernels": Case(
        lambda: cnn(nn.Conv2d(2, 3, 4, padding="same"), nn.Conv2d(3, 2, (2, 3), padding="same"), features=60), _IMAGE
    ),
    "valid padding": Case(lambda: cnn(nn.Conv2d(2, 3, 3, padding="valid", bias=False), features=36), _IMAGE),
    "reflected": Case(
        lambda: cnn(nn.Conv2d(2, 3, 3, padding=2, stride=3, padding_mode="reflect"), features=27), _IMAGE
    ),
    "circular, even, same": Case(
        lambda: cnn(nn.Conv2d(2, 3, (4, 2), padding="same", padding_mode="circular"), features=90), _IMAGE
    ),
    "replicated, unequal sides": Case(
        lambda: cnn(nn.Conv2d(2, 3, 3, padding=(2, 0), padding_mode="replicate"), features=72), _IMAGE
    ),
    "dilation and groups": Case(
        lambda: cnn(nn.Conv2d(2, 4, 3, dilation=(2, 1), groups=2), nn.Conv2d(4, 6, 2, groups=2), features=12), _IMAGE
    ),
    "depthwise": Case(
        lambda: cnn(nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.Conv2d(6, 6, 2, groups=6), features=36), _IMAGE
    ),
    "one large kernel": Case(lambda: cnn(nn.Conv2d(2, 4, (6, 5)), nn.Conv2d(4, 3, 1), features=3), _IMAGE),
    "one-dimensional convolutions": Case(
        lambda: cnn(
            nn.Conv1d(2, 4, 4, padding="same"),
            nn.Conv1d(4, 4, 3, stride=2, groups=2, padding=2, padding_mode="circular"),
            nn.Conv1d(4, 3, 2, dilation=2, padding=1, padding_mode="reflect"),
            features=15,
        ),
        (2, 7),
    ),
    "layers without a rule": Case(
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 2, 2), nn.LayerNorm((7, 6)), nn.Flatten(), nn.PReLU(), lin(84, 2)),
        _IMAGE,
        ("0", "1", "3"),
    ),
    "recurrent": Case(recurrent, (3, 3), ("body",), members=False),
    "value read on the host": Case(
        lambda: Lambda(
            lambda m, x: m.head(x) * float(m.head.bias.detach().exp().sum()) + m.side(x), head=lin(3, 2), side=lin(3, 2)
        ),
        (3,),
        members=False,
    ),
    "three-dimensional convolution": Case(
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Tanh(), lin(8, 2)), (1, 3, 3, 2), ("0",)
    ),
    "pre-activation block, group norm": Case(
        lambda: PreActivation(lambda c: nn.GroupNorm(2, c)), (4, 3, 3), ("first", "second")
    ),
    "pre-activation block, batch norm": Case(
        lambda: with_statistics(PreActivation(nn.BatchNorm2d)), (4, 3, 3), ("first", "second")
    ),
    "residual block, relu in place": Case(
        lambda: with_statistics(Residual()), (2, 5, 5), ("bn1", "bn2", "downsample.1")
    ),
    "called twice": Case(
        lambda: Lambda(lambda m, x: m.head(m.body(m.body(x).tanh()).tanh()), body=lin(3, 3), head=lin(3, 2)), (3,)
    ),
    "called on all axes and on one": Case(
        lambda: Lambda(
            lambda m, x: m.head(m.body(m.body(x).tanh().mean(1)).tanh()), body=lin(3, 3), head=lin(3, 2, bias=False)
        ),
        (4, 3),
    ),
    "one module under two names": Case(_one_module_two_names, (3,)),
    "weights tied between layers": Case(_tied_modules, (3,), ("encoder",)),
    "weights tied by the transpose": Case(
        lambda: Lambda(
            lambda m, x: m.head(F.linear(m.encoder(x).tanh(), m.encoder.weight.T)), encoder=lin(3, 4), head=lin(3, 2)
        ),
        (3,),
        ("encoder",),
    ),
    "weight used elsewhere alone": Case(
        lambda: Lambda(lambda m, x: m.head(F.linear(x, m.body.weight).tanh()), body=lin(3, 4), head=lin(4, 2)),
        (3,),
        ("body",),
    ),
    "attention": Case(_attention, (3, 4), ("attention", "attention.out_proj")),
    "attention, evaluated": Case(lambda: _attention().eval(), (3, 4), ("attention", "attention.out_proj")),
    "transformer, evaluated": Case(
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 5, batch_first=True).eval(), nn.Flatten(), lin(12, 2)),
        (3, 4),
        ("0.self_attn", "0.self_attn.out_proj", "0.norm1", "0.norm2"),
    ),
    "tokens": Case(
        lambda: Lambda(
            lambda m, x: m.head(m.mix(m.embed(x)).tanh().mean(1)),
            embed=nn.Embedding(5, 3),
            mix=lin(3, 4),
            head=lin(4, 2),
        ),
        (4,),
        ("embed",),
        tokens=5,
    ),
    "several positions": Case(lambda: nn.Sequential(lin(3, 4), nn.Tanh(), lin(4, 2), nn.Flatten(), lin(12, 2)), (6, 3)),
    "positions on two axes": Case(lambda: nn.Sequential(lin(3, 2), nn.Tanh(), nn.Flatten(), lin(12, 2)), (2, 3, 3)),
    "time before samples": Case(
        lambda: Lambda(lambda m, x: m.head(m.body(x.transpose(0, 1)).tanh().mean(0)), body=lin(3, 4), head=lin(4, 2)),
        (2, 3),
        ("body",),
    ),
    "as many times as samples are tried": Case(
        lambda: Lambda(lambda m, x: m.head(m.body(x.transpose(0, 1)).tanh().mean(0)), body=lin(3, 4), head=lin(4, 2)),
        (3, 3),
        ("body",),
    ),
    "layer of a table, not of samples": Case(
        lambda: Lambda(
            lambda m, x: m.head((x @ m.body(m.table).T).tanh()),
            table=nn.Parameter(torch.eye(3, 2)),
            body=lin(2, 3),
            head=lin(3, 2),
        ),
        (3,),
        ("", "body"),
    ),
    "layer never used": Case(lambda: Lambda(lambda m, x: m.head(x), spare=lin(4, 4), head=lin(3, 2)), (3,), ("spare",)),
    "output dropped": Case(
        lambda: Lambda(lambda m, x: m.head(x) + 0 * len(m.aside(x)), aside=lin(3, 4), head=lin(3, 2)), (3,), ("aside",)
    ),
    "without gradient, detached": Case(_without_gradient, (3,), ("body", "side")),
    "weight norm": Case(
        lambda: nn.Sequential(parametrizations.weight_norm(lin(3, 4)), nn.Tanh(), lin(4, 2)),
        (3,),
        ("0", "0.parametrizations.weight"),
    ),
    "weight norm by hooks": Case(_old_weight_norm, (3,), ("0",)),
    "spectral norm, evaluated": Case(
        lambda: nn.Sequential(parametrizations.spectral_norm(lin(3, 4)), nn.Tanh(), lin(4, 2)).eval(),
        (3,),
        ("0", "0.parametrizations.weight"),
    ),
    "subclass of linear": Case(lambda: nn.Sequential(Doubled(3, 4), nn.Tanh(), lin(4, 2)), (3,), ("0",)),
    "hook that changes an input": Case(lambda: _hooked("before"), (3,)),
    "hook that changes an output": Case(lambda: _hooked("after"), (3,), ("0",)),
    "called by keyword": Case(
        lambda: Lambda(lambda m, x: m.head(m.body(input=x).tanh()), body=lin(3, 4), head=lin(4, 2)), (3,), ("body",)
    ),
    "fixed weight, free bias": Case(_weight_as_buffer, (3,), ("0",)),
    "a scalar parameter": Case(
        lambda: Lambda(lambda m, x: m.head(x) * m.scale.exp(), scale=nn.Parameter(torch.tensor(0.5)), head=lin(3, 2)),
        (3,),
        ("",),
    ),
    "first-order model": Case(_linearized, (3,), ("hidden.0", "head")),
}
