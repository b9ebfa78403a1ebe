"""The first-order model against explicit Jacobians and finite differences."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from command_line import CONF
from fits import digits, fit, module
from problems import problem
from torch import nn
from torch.func import functional_call, jacrev

from lazy_lightning.callbacks import RunCheckpoint
from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import ConstantStep, StepsTried
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.linearize import LinearizedNetwork, tangent_departure, tangent_outputs


@pytest.fixture(scope="module", params=["softplus(5)", "tanh"])
def network(request):
    """f of two members, w0 and a displacement."""
    base = problem(seeds=(0, 1), activation=request.param)
    direction = torch.randn(base.w0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return lambda w: base.objective.network(w, base.objective.x), base.w0, direction


@pytest.mark.parametrize("graph", [True, False])
def test_against_the_explicit_jacobian(network, graph):
    f, w0, direction = network
    with torch.set_grad_enabled(graph):
        found = tangent_outputs(f, w0, direction)
    for row in range(2):
        jacobian = jacrev(lambda w: f(w.unsqueeze(0))[0, :, 0])(w0[row])
        assert_close(found[row, :, 0], jacobian @ direction[row])


def test_against_central_differences(network):
    """Their error falls as the square of the step, until rounding: 1e-16/1e-4."""
    f, w0, direction = network
    found = tangent_outputs(f, w0, direction)
    errors = [
        float(((f(w0 + s * direction) - f(w0 - s * direction)) / (2 * s) - found).abs().max())
        for s in (1e-2, 1e-3, 1e-4)
    ]
    assert np.polyfit([-2, -3, -4], np.log10(errors), 1)[0] == pytest.approx(2, abs=0.1)


def test_departure_vanishes_as_one_over_alpha():
    """dw ~ 1/alpha, so F departs from its linearisation by a relative 1/alpha."""
    alphas = [1e2, 1e3, 1e4, 1e5]
    base = problem(alphas, loss="softhinge(5)")
    state = base.to_end(controller=ConstantStep(), events=[StepsTried(20)], dt=1.0).flow_state
    o = base.objective
    linear = o.centering(tangent_outputs(lambda w: o.network(w, o.x), base.w0, state.displacement), torch.zeros(1))
    departure = tangent_departure(state.outputs.unsqueeze(-1), linear)
    # The next order in dw is of relative size 1/alpha, at most a hundredth.
    assert np.polyfit(np.log(alphas), departure.log().numpy(), 1)[0] == pytest.approx(-1, abs=0.005)


@pytest.mark.parametrize(
    ("F", "linear", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0),
        ([3.0, 4.0], [0.0, 4.0], 0.6),
        ([0.0, 0.0], [0.0, 0.0], float("nan")),
    ],
)
def test_departure(F, linear, expected):
    assert_close(tangent_departure(torch.tensor([F]), torch.tensor([linear])), torch.tensor([expected]))


# ---------------------------------------------------------------------- the network of first order

NET = functools.partial(FC, width=4, depth=2, bias=0.5)
BOTH = pytest.mark.parametrize("tangent", [False, True])


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def small(outputs=1):
    """An ordinary network, in float64, always the same."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(net.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    return net


def jacobian(net, x):
    """(n, N) of a network with one output, columns in the order of its parameters."""
    start = {name: p.detach() for name, p in net.named_parameters()}
    blocks = jacrev(lambda p: functional_call(net, p, (x,))[:, 0])(start)
    return torch.cat([block.flatten(1) for block in blocks.values()], dim=1)


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters])


def set_flat(model, w):
    nn.utils.vector_to_parameters(w, model.parameters())


@pytest.fixture(scope="module", params=[False, True], ids=["w", "dw"])
def members(request):
    """The plain members, those of first order, and how far the parameters of the latter start from zero."""
    linear = functools.partial(LinearizedNetwork, NET, tangent=request.param)
    plain, first_order = (InitialMembers(net, [0, 3], (3,), 2) for net in (NET, linear))
    return plain, first_order


def test_members_start_where_the_network_does(members):
    plain, linear = members
    assert linear.network.names == plain.network.names
    assert linear.network.layer_slices() == plain.network.layer_slices()
    assert linear.network.template.width == 4
    held = torch.cat([linear.buffers[f"origin.{name}"].flatten(1) for name in plain.network.names], dim=1)
    assert torch.equal(held, plain.w0)
    tangent = linear.w0.abs().max() == 0
    assert tangent or torch.equal(linear.w0, plain.w0)
    x = normal(5, 3)
    f0 = torch.zeros(2, 5, 2).double() if tangent else plain.network(plain.w0, x)
    assert_close(linear.network(linear.w0, x, linear.buffers), f0, scale=1.0)


def test_members_have_their_own_jacobian(members):
    """Against central differences of the network, whose error is the square of the step."""
    plain, linear = members
    dw, x, s = normal(*plain.w0.shape), normal(5, 3, seed=1), 1e-4
    moved, start = (linear.network(linear.w0 + d, x, linear.buffers) for d in (dw, torch.zeros_like(dw)))
    J = (plain.network(plain.w0 + s * dw, x) - plain.network(plain.w0 - s * dw, x)) / (2 * s)
    assert_close(moved - start, J, rtol=1e-6)
    assert_close(moved - start, tangent_outputs(lambda w: plain.network(w, x), plain.w0, dw))


def test_gradient_is_the_transposed_jacobian_wherever_it_is_taken(members):
    plain, linear = members
    x, cotangent = normal(5, 3, seed=1), normal(2, 5, 2, seed=2)
    w = plain.w0.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(plain.network(w, x), w, cotangent)
    for distance in (0.0, 1.0):
        at = (linear.w0 + distance * normal(*w.shape)).requires_grad_(True)
        (found,) = torch.autograd.grad(linear.network(at, x, linear.buffers), at, cotangent)
        assert_close(found, expected)


def test_members_are_those_alone(members):
    _, linear = members
    x, w = normal(5, 3, seed=1), linear.w0 + normal(*linear.w0.shape)
    together = linear.network(w, x, linear.buffers)
    for row in (0, 1):
        alone = {name: b[row : row + 1] for name, b in linear.buffers.items()}
        assert_close(together[row], linear.network(w[row : row + 1], x, alone)[0])


def test_layers_put_out_their_first_order_model(members):
    plain, linear = members
    x, dw = normal(5, 3, seed=1), normal(*plain.w0.shape)
    found = linear.network.preactivations(linear.w0 + dw, x, linear.buffers)
    z0 = plain.network.preactivations(plain.w0, x)
    dz = torch.func.jvp(lambda w: plain.network.preactivations(w, x), (plain.w0,), (dw,))[1]
    assert list(found) == list(z0)
    for layer, z in found.items():
        assert_close(z, z0[layer] + dz[layer])


@BOTH
def test_module_against_its_jacobian(tangent):
    net, x = small(), normal(6, 3)
    model = LinearizedNetwork(net, tangent=tangent)
    dw = normal(sum(p.numel() for p in net.parameters()))
    set_flat(model, flat(model.parameters()) + dw)
    expected = jacobian(net, x) @ dw + (0.0 if tangent else net(x)[:, 0])
    assert_close(model(x)[:, 0], expected)


def test_gradient_descent_has_its_closed_form():
    """f - y is multiplied by 1 - lr Theta/n at each step of the mean square loss, halved."""
    net, x, y, lr, steps = small(), normal(6, 3), normal(6, seed=5), 0.05, 30
    model = LinearizedNetwork(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
    J = jacobian(net, x)
    factor = torch.linalg.matrix_power(torch.eye(6).double() - lr / 6 * J @ J.T, steps)
    assert_close(model(x)[:, 0] - y, factor @ (net(x)[:, 0] - y), rtol=1e-13)


@BOTH
def test_adam_follows_a_regression_on_the_jacobian(tangent):
    net, x, y = small(), normal(6, 3), normal(6, seed=5)
    model, J, f0 = LinearizedNetwork(net, tangent=tangent), jacobian(net, x), net(x)[:, 0].detach()
    dw = torch.zeros(J.shape[1], dtype=torch.float64, requires_grad=True)
    start = flat(model.parameters())
    both = torch.optim.Adam([*model.parameters(), dw], lr=0.01)
    for _ in range(20):
        both.zero_grad()
        f = model(x)[:, 0] + (f0 if tangent else 0.0)
        ((f - y).square().sum() + (J @ dw + f0 - y).square().sum()).backward()
        both.step()
    assert_close(flat(model.parameters()) - start, dw, rtol=1e-11)


@BOTH
def test_saved_and_loaded(tangent):
    one, x = LinearizedNetwork(small(), tangent=tangent), normal(5, 3)
    set_flat(one, normal(sum(p.numel() for p in one.parameters())))
    other = LinearizedNetwork(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), tangent=tangent).double()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), one(x))


def test_large_alpha_in_float32():
    """At alpha = 1e6 the weights, of order one, cannot hold a displacement of 1e-6; the displacement can."""
    plain = InitialMembers(NET, [0], (3,), 1)
    x, dw = normal(5, 3, dtype=torch.float32), normal(*plain.w0.shape, dtype=torch.float32) / 1e6
    w0 = plain.w0.float().double()
    expected = tangent_outputs(lambda w: plain.network(w, x.double()), w0, dw.double())
    error = {}
    for tangent in (False, True):
        linear = InitialMembers(functools.partial(LinearizedNetwork, NET, tangent=tangent), [0], (3,), 1)
        buffers, start = {name: b.float() for name, b in linear.buffers.items()}, linear.w0.float()
        F = linear.network(start + dw, x, buffers) - linear.network(start, x, buffers)
        error[tangent] = float((F - expected).norm() / expected.norm())
    assert error[True] < 5e-6
    assert error[False] > 1e-3


def test_shared_weights():
    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(3, 1))
    net[4].weight = nn.Parameter(layer.weight[:1].detach().clone())
    net.register_parameter("twice", net[4].weight)
    net = net.double()
    model, x, dw, s = LinearizedNetwork(net), normal(5, 3), normal(16), 1e-5
    w0 = flat(net.parameters())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in net.named_parameters()]
    set_flat(model, w0 + dw)
    f0, ends = net(x), []
    for sign in (1, -1):
        set_flat(net, w0 + sign * s * dw)
        ends.append(net(x))
    for _ in range(2):  # the first evaluation leaves nothing behind
        assert_close(model(x) - f0, (ends[0] - ends[1]) / (2 * s), rtol=1e-7)


def test_the_network_given_stays_as_it_is_and_evaluates():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    net[0].weight.requires_grad_(False)
    before = [p.clone() for p in net.state_dict().values()]
    model, x = LinearizedNetwork(net).train(), normal(6, 3)
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    out = model(x)
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    assert_close(out, net.eval()(x))  # the running statistics, not those of the batch
    with torch.inference_mode():
        assert_close(model(x), out)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.origin = nn.Linear(3, 1)


@pytest.mark.parametrize(("net", "told"), [(Named(), "a part named 'origin'"), (nn.Tanh(), "has no parameters")])
def test_networks_that_are_refused(net, told):
    with pytest.raises(ConfigError, match=told):
        LinearizedNetwork(net)


# ---------------------------------------------------------------------- in a run


def linearized(tangent=False, **options):
    network = functools.partial(LinearizedNetwork, functools.partial(FC, width=12, depth=2), tangent=tangent)
    return FlowModule(network, **{"stop": StoppingCriteria(max_steps=40), **options})


@BOTH
def test_a_run_never_leaves_its_tangent_space(tmp_path, tangent):
    run = fit(tmp_path, linearized(tangent, alpha=[0.01, 100.0], seeds=2))
    # The weights hold a displacement of 1e-2/100 to twelve digits, their zero start holds it to all.
    assert max(run.last("tangent_departure")) < (1e-14 if tangent else 1e-11)
    # What is learnt does not depend on alpha.
    for lazy, feature in ((0, 2), (1, 3)):
        assert run.last("train/loss")[lazy] == pytest.approx(run.last("train/loss")[feature], rel=1e-9)
    assert run.last("train/loss")[0] < 0.9
    assert run.last("activation_drift/hidden.1")[0] > 0


def test_the_network_approaches_it_as_one_over_alpha(tmp_path):
    options = {
        "alpha": [1e2, 1e3, 1e4],
        "controller": ConstantStep(),
        "dt": 0.2,
        "stop": StoppingCriteria(max_steps=20),
    }
    F = [
        fit(tmp_path / name, model(**options)).module.flow.flow_state.outputs
        for name, model in (("network", module), ("linear", linearized))
    ]
    distance = ((F[0] - F[1]).norm(dim=1) / F[1].norm(dim=1)).log10().numpy()
    assert np.polyfit([2, 3, 4], distance, 1)[0] == pytest.approx(-1, abs=0.02)


def test_evaluated_from_a_checkpoint(tmp_path):
    """In inference mode, where the trainer would have it."""
    run = fit(tmp_path, linearized(alpha=10.0), callbacks=[RunCheckpoint()])
    fresh, path = linearized(alpha=10.0), tmp_path / "checkpoint.ckpt"
    (values,) = run.trainer.test(fresh, datamodule=digits(), ckpt_path=path, verbose=False)
    assert values["test/loss/alpha=10"] == pytest.approx(run.last("test/loss")[0])


def test_by_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linear.yaml").write_text(
        "model: {init_args: {network: {class_path: lazy_lightning.nn.linearize.LinearizedNetwork, init_args: {network: "
        "{class_path: lazy_lightning.nn.FC, init_args: {width: 9, depth: 1}}}}, seeds: 2, stop: {max_steps: 10}}}\n"
        "data: {init_args: {n_train: 30, n_test: 20}}\n"
    )
    quiet = ["--config", str(CONF / "quiet.yaml"), "--trainer.default_root_dir=out"]
    assert main(["fit", "--config", "digits_fc.yaml", "--config", "linear.yaml", *quiet]) == 0
    shown = capsys.readouterr().out
    assert f"{9 * 64 + 9} weights a member" in shown
    assert "alpha = 0.01 is undecided: its linearisation gives nearly the same function so far" in shown
