"""The tangent kernel of every kind of network, by every method, against Jacobians formed row by row with autograd."""

import functools
import re

import pytest
import torch
from closeness import assert_close
from ntk_cases import CASES, Lambda, contracted, jacobian, lin
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import FC, MemberNetwork
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.tangent_model import TangentModel

pytestmark = [
    # What torch says of weight normalisation and of its own padding.
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

EVERY = pytest.mark.parametrize("name", CASES)
STRUCTURED = [name for name, case in CASES.items() if not case.jacobian]
FORWARD = list(CASES)
MAPPED = [name for name, case in CASES.items() if case.members]
METHODS = [
    *[(name, method) for name in CASES for method in ("auto", "jacobian")],
    *[(name, "structured") for name in STRUCTURED],
    *[(name, "jvp") for name in FORWARD],
]


@functools.cache
def setting(name, dtype=torch.float64):
    """A network, x1 and x2 and the Jacobians there."""
    case = CASES[name]
    net, (x1, x2) = case.network(dtype), case.pairs(dtype)
    return net, x1, x2, jacobian(net, x1), jacobian(net, x2)


@functools.cache
def three_members(name):
    """(E, *shape) each: the network's own weights and others."""
    net = setting(name)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return {n: torch.stack([p, p + 0.2 * torch.randn_like(p), 0.7 * p]).detach() for n, p in net.named_parameters()}


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods_agree_with_autograd(name, method):
    net, x1, x2, j1, j2 = setting(name)
    for output in ("full", "diagonal", "trace", "mean") if method == "auto" else ("full", "mean"):
        ask = functools.partial(empirical_ntk, net, None, output=output, method=method)
        assert_close(ask(x1), contracted(j1, j1, output), rtol=1e-13)
        assert_close(ask(x1, x2), contracted(j1, j2, output), rtol=1e-13)


@EVERY
def test_single_precision(name):
    net, x1, x2, j1, j2 = setting(name, torch.float32)
    found = empirical_ntk(net, None, x1, x2)
    assert found.dtype == torch.float32
    assert_close(found, contracted(j1, j2, "full"))


@EVERY
def test_structure_is_found_where_it_is_and_nowhere_else(name):
    net, x1, *_ = setting(name)
    plan = make_plan(TangentModel.of(net), x1)
    assert set(plan.jacobian) == set(CASES[name].jacobian) == set(plan.reasons)
    assert sorted(plan.layers) == sorted(TangentModel.of(net).layers())


@pytest.mark.parametrize("name", sorted(set(CASES) - set(STRUCTURED)))
def test_asking_for_structure_names_the_layers_without(name):
    net, x1, *_ = setting(name)
    with pytest.raises(ConfigError, match=f"cannot treat {len(CASES[name].jacobian)} of .* use method='auto'") as error:
        empirical_ntk(net, None, x1, method="structured")
    for layer in CASES[name].jacobian:
        assert re.search(rf"'{re.escape(layer)}'|{re.escape(layer)}:|the network itself", str(error.value))


@EVERY
def test_layers_sum_up(name):
    net, x1, x2, j1, j2 = setting(name)
    parts = empirical_ntk_by_layer(net, None, x1, x2, output="diagonal")
    assert list(parts) == list(TangentModel.of(net).layers())
    assert_close(sum(parts.values()), contracted(j1, j2, "diagonal"), rtol=1e-13)


@EVERY
def test_each_layer_is_that_of_its_own_parameters(name):
    net, x1, x2, *_ = setting(name)
    parts = empirical_ntk_by_layer(net, None, x1, x2, output="trace")
    whole = sum(parts.values()).abs().max()
    for layer, own in TangentModel.of(net).layers().items():
        expected = contracted(jacobian(net, x1, own), jacobian(net, x2, own), "trace")
        assert_close(parts[layer], expected, rtol=1e-13, scale=whole)
        alone = empirical_ntk(net, None, x1, x2, output="trace", layers=[layer])
        assert_close(alone, expected, rtol=1e-13, scale=whole)


@pytest.mark.parametrize("name", ["plain linear", "residual block, relu in place", "recurrent"])
@pytest.mark.parametrize("method", ["jacobian", "jvp"])
def test_one_layer_by_the_other_methods(name, method):
    net, x1, x2, *_ = setting(name)
    for layer, own in TangentModel.of(net).layers().items():
        expected = contracted(jacobian(net, x1, own), jacobian(net, x2, own), "full")
        assert_close(empirical_ntk(net, None, x1, x2, layers=layer, method=method), expected, rtol=1e-13)


@EVERY
def test_own_products_are_the_diagonal(name):
    net, x1, _, j1, _ = setting(name)
    for output, method in (("full", "auto"), ("diagonal", "auto"), ("trace", "jacobian"), ("mean", "auto")):
        expected = contracted(j1, j1, output).diagonal(dim1=0, dim2=1).movedim(-1, 0)
        assert_close(empirical_ntk_diagonal(net, None, x1, output=output, method=method, tile=2), expected, rtol=1e-13)


@pytest.mark.parametrize("name", MAPPED)
def test_members_are_computed_one_by_one(name):
    net, x1, x2, *_ = setting(name)
    weights = three_members(name)
    each = [{n: w[e] for n, w in weights.items()} for e in range(3)]
    for other in (None, x2):
        expected = torch.stack([empirical_ntk(net, own, x1, other) for own in each])
        assert_close(empirical_ntk(net, weights, x1, other), expected, rtol=1e-12)
    for method in ("auto", "jacobian"):
        expected = torch.stack([empirical_ntk_diagonal(net, own, x1, method=method) for own in each])
        assert_close(empirical_ntk_diagonal(net, weights, x1, method=method), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(MAPPED)))
@pytest.mark.parametrize("method", ["auto", "jvp"])
def test_members_that_cannot_be_mapped_are_refused(name, method):
    net, x1, *_ = setting(name)
    with pytest.raises(ConfigError, match=r"cannot be mapped over members .*: give the weights of one"):
        empirical_ntk(net, three_members(name), x1, method=method)


@pytest.mark.parametrize("name", sorted({*FORWARD} & {*MAPPED}))
def test_columns_of_members(name):
    net, x1, x2, *_ = setting(name)
    weights = three_members(name)
    found = empirical_ntk(net, weights, x1, x2, output="diagonal", method="jvp")
    assert_close(found, empirical_ntk(net, weights, x1, x2, output="diagonal"), rtol=1e-12)


@EVERY
def test_weights_may_come_flat_and_in_a_mapping(name):
    net, x1, *_ = setting(name)
    own = dict(net.named_parameters())
    flat = torch.cat([p.flatten() for p in own.values()])
    expected = empirical_ntk(net, None, x1)
    for params in (own, flat, dict(reversed(own.items()))):
        assert torch.equal(empirical_ntk(net, params, x1), expected)
    for one in ({n: p.unsqueeze(0) for n, p in own.items()}, flat.unsqueeze(0)):
        assert torch.equal(empirical_ntk(net, one, x1), expected.unsqueeze(0))
        assert empirical_ntk_diagonal(net, one, x1).shape == (1, len(x1), *expected.shape[2:])


def test_members_of_a_run():
    """The network and the flat weights of an ensemble as a run holds them."""
    members = InitialMembers(functools.partial(FC, 5, 2, bias=0.1), [3, 5], (4,), 2)
    x = CASES["fc with biases and three outputs"].samples(4)
    found = empirical_ntk(members.network, members.w0, x)
    for row in range(2):
        named = {n: p[0] for n, p in members.network.unpack(members.w0[row : row + 1]).items()}
        net = FC(5, 2, bias=0.1, input_shape=4, num_outputs=2).double()
        net.load_state_dict(named)
        assert_close(found[row], contracted(jacobian(net, x), jacobian(net, x), "full"), rtol=1e-13)
    assert_close(empirical_ntk(members.network, members.w0[0], x), found[0], rtol=1e-13)
    assert empirical_ntk(MemberNetwork(net), None, x).shape == (4, 4, 2, 2)


def scaled():
    """A network with a buffer."""
    net = Lambda(lambda m, x: m.head((m.body(x) * m.gate).tanh()), body=lin(3, 4), head=lin(4, 2)).double()
    net.register_buffer("gate", torch.linspace(0.5, 2, 4, dtype=torch.float64))
    return net


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian", "jvp"])
def test_members_may_differ_in_buffers(method):
    net, x = scaled(), CASES["plain linear"].samples(4)
    gates = torch.stack([net.gate, net.gate**2])
    weights = {n: torch.stack([p, 0.5 * p]).detach() for n, p in net.named_parameters()}
    found = empirical_ntk(net, weights, x, buffers={"gate": gates}, method=method)
    for row in range(2):
        own = scaled()
        own.load_state_dict({"gate": gates[row], **{n: w[row] for n, w in weights.items()}})
        assert_close(found[row], contracted(jacobian(own, x), jacobian(own, x), "full"), rtol=1e-13)
    for one in (gates[1], gates[1:]):
        alone = empirical_ntk(net, {n: w[1] for n, w in weights.items()}, x, buffers={"gate": one}, method=method)
        assert_close(alone, found[1], rtol=1e-13)


def test_dtype_and_device_are_those_asked_for():
    net, x1, x2, j1, j2 = setting("plain linear")
    assert empirical_ntk(net, None, x1.float(), dtype=torch.float32).dtype == torch.float32
    single = CASES["plain linear"].network(torch.float32)
    found = empirical_ntk(single, None, x1, x2, dtype=torch.float64, device="cpu")
    assert_close(found, contracted(j1, j2, "full"), rtol=1e-6)  # the weights were rounded


@pytest.mark.parametrize("method", ["auto", "jacobian", "jvp"])
def test_samples_of_two_sizes(method):
    """A network that takes the mean over its positions compares images of two sizes."""
    net = Lambda(lambda m, x: m.head(m.body(x).tanh().mean((2, 3))), body=nn.Conv2d(2, 3, 2), head=lin(3, 2)).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [torch.randn(3, 2, *size, dtype=torch.float64) for size in ((9, 8), (2, 2), (3, 4))]
    for x1 in sizes:
        for x2 in sizes:
            found = empirical_ntk(net, None, x1, x2, method=method)
            assert_close(found, contracted(jacobian(net, x1), jacobian(net, x2), "full"), rtol=1e-13)


@pytest.mark.parametrize("name", ["plain linear", "residual block, relu in place", "weights tied between layers"])
def test_one_sample(name):
    net, x1, x2, j1, j2 = setting(name)
    assert_close(empirical_ntk(net, None, x1[:1]), contracted(j1[:1], j1[:1], "full"), rtol=1e-13)
    assert_close(empirical_ntk(net, None, x1[:1], x2), contracted(j1[:1], j2, "full"), rtol=1e-13)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("method", ["auto", "structured", "jacobian", "jvp"])
def test_under_any_gradient_mode(mode, method):
    """Trainers validate in inference mode; weights and samples made there can be used."""
    net, x1, _, j1, _ = setting("plain linear")
    with mode():
        weights = {n: p.clone() for n, p in net.named_parameters()}
        found = [empirical_ntk(net, params, x1.clone(), method=method) for params in (None, weights)]
    for kernel in found:
        assert not kernel.requires_grad
        assert_close(kernel, contracted(j1, j1, "full"), rtol=1e-13)


@EVERY
def test_network_is_left_as_it_was(name):
    net, x1, *_ = setting(name)
    held = [*net.parameters(), *net.buffers()]
    values, hooks = [t.clone() for t in held], [len(module._forward_hooks) for module in net.modules()]
    given = x1.clone()
    for method in ("auto", "jacobian", "jvp"):
        empirical_ntk(net, None, x1, output="trace", method=method)
    assert all(new is old for new, old in zip([*net.parameters(), *net.buffers()], held, strict=True))
    assert all(torch.equal(t, value) for t, value in zip(held, values, strict=True))
    assert torch.equal(x1, given)
    assert all(p.grad is None for p in net.parameters())
    assert [len(module._forward_hooks) for module in net.modules()] == hooks


def test_the_last_layer_is_the_kernel_of_the_features():
    net, x1, x2, *_ = setting("plain linear")
    features = [net[:-1](x) for x in (x1, x2)]
    expected = (features[0] @ features[1].T + 1)[..., None, None] * torch.eye(2)
    assert_close(empirical_ntk(net, None, x1, x2, layers="last"), expected, rtol=1e-13)
    assert_close(empirical_ntk(net, None, x1, x2, layers="4"), expected, rtol=1e-13)


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian", "jvp"])
def test_weights_that_are_not_numbers_give_a_kernel_that_is_not(method):
    """One diverged member neither ends the computation nor touches the others."""
    net, x1, *_ = setting("plain linear")
    weights = {n: torch.stack([p * torch.nan, p]).detach() for n, p in net.named_parameters()}
    found = empirical_ntk(net, weights, x1, method=method)
    assert found[0].isnan().all()
    assert_close(found[1], empirical_ntk(net, None, x1, method=method), rtol=1e-12)


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian"])
def test_a_sample_that_is_not_a_number_spoils_its_own_row(method):
    net, x1, *_ = setting("plain linear")
    spoiled = x1.clone()
    spoiled[1] = torch.nan
    found = empirical_ntk(net, None, spoiled, method=method, output="trace")
    keep = [0, 2, 3, 4]
    assert found[1].isnan().all()
    assert found[:, 1].isnan().all()
    assert_close(found[keep][:, keep], empirical_ntk(net, None, x1[keep], output="trace"), rtol=1e-12)


def test_structure_is_not_taken_on_trust_where_the_weights_hide_it():
    """At a head of zeros all other gradients vanish; a member whose head is not zero has another kernel."""
    case = CASES["weights tied by the transpose"]
    net, x = case.network(), case.samples(4)
    weights = {n: torch.stack([p, p]).detach() for n, p in net.named_parameters()}
    weights["head.weight"][0] = 0
    expected = contracted(jacobian(net, x), jacobian(net, x), "full")
    assert_close(empirical_ntk(net, weights, x)[1], expected, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_what_torch_maps_wrongly_is_not_mapped(count, outputs):
    """vmap over jacrev of PReLU gives wrong numbers without a word when there are as many samples as outputs."""
    net = nn.Sequential(nn.PReLU(), lin(4, outputs)).double()
    x = torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = contracted(jacobian(net, x), jacobian(net, x), "full")
    for method in ("auto", "jacobian"):
        for tile in (1, 2, 3, None):
            assert_close(empirical_ntk(net, None, x, method=method, tile=tile), expected, rtol=1e-13)
