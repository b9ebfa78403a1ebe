"""What has no tangent kernel, or none that could be given, is refused by one sentence with the value and the remedy."""

import pytest
import torch
import torch.nn.functional as F
from ntk_cases import Lambda, lin
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from lazy_lightning import memory
from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def mlp(*between: nn.Module) -> nn.Module:
    return nn.Sequential(lin(3, 4), *between, lin(4, 2)).double()


class MinusMean(nn.Module):
    """Couples the samples of a batch."""

    def forward(self, x):
        return x - x.mean(0)


class Counter(nn.Module):
    """Keeps a running mean of what it has seen, which the output does not depend on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        if self.training:
            self.seen += x.detach().mean(0)
        return x


def silent_head():
    """Coupled, but at the head's zeros the outputs do not show it."""
    net = mlp(MinusMean(), nn.Tanh())
    for p in net[-1].parameters():
        nn.init.zeros_(p)
    return net


def checkpointed():
    return Lambda(
        lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False)), body=lin(3, 4), head=lin(4, 2)
    ).double()


def attention_with_dropout():
    attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
    return Lambda(lambda m, x: m.attention(x, x, x)[0].mean(1), attention=attention).double()


def first_decides():
    """Which layer is used depends on the first sample of the batch."""
    return Lambda(lambda m, x: (m.a if x[0, 0] < X[1, 0] else m.b)(x), a=lin(3, 2), b=lin(3, 2)).double()


NETWORKS = [
    (lambda: mlp(nn.BatchNorm1d(4)), r"layer '1' \(BatchNorm1d\) of Sequential .* batch.*: call model.eval"),
    (lambda: mlp(nn.BatchNorm1d(4, track_running_stats=False)).eval(), r"BatchNorm1d.*\(which it must keep\)"),
    (lambda: nn.SyncBatchNorm.convert_sync_batchnorm(mlp(nn.BatchNorm1d(4))), "SyncBatchNorm.*call model.eval"),
    (lambda: mlp(nn.Dropout(0.1)), r"layer '1' \(Dropout\) .* random numbers: call model.eval"),
    (lambda: mlp(nn.AlphaDropout(0.1)), "AlphaDropout.* random numbers: call model.eval"),
    (lambda: mlp(nn.RReLU()), "RReLU.* random numbers: call model.eval"),
    (
        lambda: mlp(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()),
        "InstanceNorm1d",
    ),
    (
        lambda: mlp(MinusMean()),
        "another output .* when others are in the batch.*: replace the layer that mixes samples",
    ),
    (silent_head, "replace the layer that mixes samples"),
    (first_decides, "replace the layer that mixes samples"),
    (lambda: Lambda(lambda m, x: m.head(F.dropout(x)), head=lin(3, 2)).double(), "draws random .*: call model.eval"),
    (lambda: mlp(Counter()), r"changes 1.seen at each evaluation: call model.eval"),
    (
        lambda: nn.Sequential(parametrizations.spectral_norm(lin(3, 2))).double(),
        r"changes .*_u, .*_v at each evaluation",
    ),
    (checkpointed, "activation checkpoints, .*: switch them off"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Tanh()), "Sequential has no parameters"),
    (lambda: Lambda(lambda m, x: (m.head(x),), head=lin(3, 2)).double(), "one tensor, .* but gave a tuple: wrap it"),
    (lambda: Lambda(lambda m, x: m.head(x)[..., None], head=lin(3, 2)).double(), r"gave shape \(\d, 2, 1\)"),
    (lambda: Lambda(lambda m, x: m.head(x).sum(), head=lin(3, 2)).double(), r"samples gave shape \(\)"),
]


@pytest.mark.parametrize(("build", "told"), NETWORKS)
@pytest.mark.parametrize("method", ["auto", "jacobian", "jvp"])
def test_networks_that_have_no_kernel(build, told, method):
    with pytest.raises(ConfigError, match=told):
        empirical_ntk(build(), None, X, method=method)


@pytest.mark.parametrize(("build", "told"), NETWORKS)
def test_nor_an_operator_or_a_diagonal(build, told):
    with pytest.raises(ConfigError, match=told):
        empirical_ntk_diagonal(build(), None, X)
    with pytest.raises(ConfigError, match=told):
        NTKOperator(build(), None, X) @ torch.ones(10)


def test_dropout_inside_attention_is_seen():
    x = X[:, :, None].expand(5, 3, 4)
    with pytest.raises(ConfigError, match="draws random numbers"):
        empirical_ntk(attention_with_dropout(), None, x)
    empirical_ntk(attention_with_dropout().eval(), None, x)


def test_coupling_is_seen_when_one_side_has_one_sample():
    with pytest.raises(ConfigError, match="mixes samples"):
        empirical_ntk(mlp(MinusMean()), None, X[:1], X)


def test_a_network_that_changes_itself_is_found_out_on_a_copy():
    net = mlp(Counter())
    with pytest.raises(ConfigError, match="changes"):
        empirical_ntk(net, None, X)
    assert (net[1].seen == 0).all()


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.BatchNorm1d(4).eval(), nn.Dropout(0.5).eval(), Counter().eval()])
def test_the_remedy_helps(layer):
    assert empirical_ntk(mlp(layer), None, X).isfinite().all()


OPTIONS = [
    ({"method": "magic"}, "method is 'magic', expected one of auto, structured, jacobian, jvp"),
    ({"output": "sum"}, "output is 'sum', expected one of full, diagonal, trace, mean"),
    ({"layers": ["0", "7"]}, r"layers names \['7'\], expected some of 0, 2, or last"),
    ({"layers": "seven"}, r"layers names \['seven'\]"),
    ({"layers": []}, "layers names nothing"),
    ({"tile": 0}, "tile must be >= 1 samples, got 0"),
    ({"tile": -3}, "tile must be >= 1 samples, got -3"),
    ({"x1": X[:0]}, "of no samples was asked for: give at least one"),
    ({"x2": X[:0]}, "of no samples"),
    (
        {"buffers": {"mean": torch.zeros(1)}},
        r"buffers names \['mean'\], expected some of none: Sequential has no others",
    ),
    ({"out": torch.zeros(5, 5)}, r"out has shape \(5, 5\), the kernel has \(5, 5, 2, 2\)"),
    ({"out": torch.zeros(5, 4, 2, 2).numpy()}, r"out has shape \(5, 4, 2, 2\)"),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS)
def test_options_out_of_range(options, told):
    with pytest.raises(ConfigError, match=told):
        empirical_ntk(mlp(nn.Tanh()), None, **{"x1": X, **options})


@pytest.mark.parametrize(("options", "told"), [case for case in OPTIONS if {"out", "x2"}.isdisjoint(case[0])])
def test_options_of_the_diagonal_and_of_layers(options, told):
    options = dict(options)
    x = options.pop("x1", X)
    for function in (empirical_ntk_by_layer, empirical_ntk_diagonal):
        with pytest.raises(ConfigError, match=told):
            function(mlp(nn.Tanh()), None, x, **options)


def test_columns_do_not_tell_layers_apart():
    with pytest.raises(ConfigError, match="does not tell layers apart: use auto"):
        empirical_ntk_by_layer(mlp(nn.Tanh()), None, X, method="jvp")


def parameters(**changes):
    return {**{n: p.detach() for n, p in mlp(nn.Tanh()).named_parameters()}, **changes}


def without(name):
    return {n: p for n, p in parameters().items() if n != name}


PARAMETERS = [
    (without("0.bias"), r"missing \['0.bias'\], unknown none; give dict\(model.named_parameters\(\)\)"),
    (parameters(extra=torch.zeros(1)), r"missing none, unknown \['extra'\]"),
    ({}, "missing "),
    (
        parameters(**{"0.bias": torch.zeros(7)}),
        r"params\['0.weight'\] has shape|params\['0.bias'\] has shape \(7,\), exp",
    ),
    (parameters(**{"0.bias": torch.zeros(2, 4)}), r"has shape .*, expected .* a member axis of one length in front"),
    ({n: torch.stack([p] * (2 + (n == "2.bias"))) for n, p in parameters().items()}, "a member axis of one length"),
    (
        torch.zeros(25),
        r"flat weights of shape \(25,\) came to a network of 26 weights: give \(26,\) or \(members, 26\)",
    ),
    (torch.zeros(2, 25), r"flat weights of shape \(2, 25\)"),
    (torch.zeros(1, 1, 26), r"flat weights of shape \(1, 1, 26\)"),
    (torch.tensor(0.0), r"flat weights of shape \(\)"),
]


@pytest.mark.parametrize(("params", "told"), PARAMETERS)
def test_parameters_that_do_not_fit(params, told):
    for function in (empirical_ntk, empirical_ntk_diagonal, NTKOperator):
        with pytest.raises(ConfigError, match=told):
            function(mlp(nn.Tanh()), params, X)


GATES = [
    (None, torch.ones(4), r"buffers\['gate'\] has shape \(4,\), expected \(1, 3\)"),
    (torch.ones(2, 8), torch.ones(3), r"has shape \(3,\), expected \(2, 3\): one a member"),
    (torch.ones(2, 8), torch.ones(3, 3), r"has shape \(3, 3\), expected \(2, 3\)"),
]


@pytest.mark.parametrize(("params", "gate", "told"), GATES)
def test_buffers_that_do_not_fit(params, gate, told):
    net = Lambda(lambda m, x: m.head(x * m.gate), head=lin(3, 2))
    net.register_buffer("gate", torch.ones(3))
    with pytest.raises(ConfigError, match=told):
        empirical_ntk(net, params, X, buffers={"gate": gate})


@pytest.mark.parametrize(("function", "copies"), [(empirical_ntk, ""), (empirical_ntk_by_layer, "2 times ")])
def test_a_result_too_large_is_told_before_any_work(function, copies, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 799)
    told = (
        r"a tangent kernel of shape \(5, 5, 2, 2\) in torch.float64 needs .*, but 799 bytes are free on cpu: pass out="
    )
    with pytest.raises(RunError, match="^" + copies + told):
        function(mlp(nn.Tanh()), None, X)


def test_a_result_written_elsewhere_needs_no_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 799)
    out = torch.zeros(5, 5, 2, 2, dtype=torch.float64)
    assert empirical_ntk(mlp(nn.Tanh()), None, X, out=out) is out


class Expert(nn.Module):
    """Uses its second layer for some samples only, as a mixture of experts does."""

    def __init__(self):
        super().__init__()
        self.all, self.some = lin(3, 2), lin(3, 2)

    def forward(self, x):
        z, rows = self.all(x), x[:, 0] < 5
        return z.index_put((rows,), self.some(x[rows])) if rows.any() else z


def test_structure_that_does_not_hold_for_other_samples_is_refused():
    """A plan is made at the first data; at others the layer is not called any more."""
    net, x = Expert().double(), X.clone()
    empirical_ntk(net, None, x)
    x[:, 0] = 6.0
    with pytest.raises(ConfigError, match=r"layer 'some' is called otherwise .* than for the first ones .*'jacobian'"):
        empirical_ntk(net, None, x)
    assert (empirical_ntk(net, None, x, method="jacobian", layers=["some"], output="trace") == 0).all()


def test_a_layer_that_later_samples_do_not_use_has_its_jacobian():
    net, x = Expert().double(), X.clone()
    x[4, 0] = 6.0
    found = empirical_ntk(net, None, x, layers=["some"], output="trace")
    assert (found[4] == 0).all()
    torch.testing.assert_close(found[:4, :4], 2 * (x[:4] @ x[:4].T + 1))


def test_a_layer_that_the_first_samples_do_not_use_has_its_jacobian():
    net, x = Expert().double(), X.clone()
    x[:4, 0] = 6.0
    found = empirical_ntk(net, None, x, layers=["some"], output="trace")
    assert found[4, 4] == pytest.approx(float(2 * (x[4] @ x[4] + 1)))
    assert (found[:4] == 0).all()
