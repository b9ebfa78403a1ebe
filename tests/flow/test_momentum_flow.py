"""MomentumFlow as an ordinary torch optimizer, and its contract with the closure."""

import pytest
import torch
from closeness import assert_close
from problems import problem
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import (
    ConstantStep,
    Evaluation,
    GradientChangeController,
    MarginsMet,
    MomentumFlow,
    StepsTried,
    StopReason,
    TimeReached,
)
from lazy_lightning.seeding import generator


def regression(samples=20):
    draw = generator("tests/regression", 0)
    return (torch.randn(samples, k, dtype=torch.float64, generator=draw) for k in (3, 1))


def ordinary(**options):
    """A network of two layers with biases, and its flow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = regression()
    flow = MomentumFlow(model.parameters(), **options)

    def closure():
        flow.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    return model, flow, closure


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_ordinary_module_descends():
    model, flow, closure = ordinary(events=[TimeReached(20.0)], steps=40)
    start = closure().detach()
    losses = [flow.step(closure) for _ in range(25)]
    assert flow.reasons == [StopReason.T_MAX]
    assert float(losses[-1]) < float(losses[0]) < float(start)  # each keeps its value while the flow goes on
    assert float(losses[-1]) < 0.5 * float(start)
    assert_close(losses[-1][0], closure())  # the model holds the weights that the loss is of
    assert_close(vector(model), flow.flow_state.weights()[0], rtol=0.0)


def test_gradient_flow_at_a_constant_step_is_sgd():
    model, flow, closure = ordinary(controller=ConstantStep(), dt=0.1, steps=25)
    flow.step(closure)
    other, _, evaluate = ordinary()
    sgd = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(25):
        sgd.zero_grad()
        evaluate()
        sgd.step()
    assert_close(vector(model), vector(other))


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_several_parameters_with_a_member_axis_equal_one_matrix(tau):
    setting = problem(alphas=(0.3, 3.0), seeds=(0, 1))
    options = {"events": [StepsTried(30)], "tau": tau, "dt": 0.1, "compact": True, "steps": 8}
    whole = setting.run(bursts=6, **options)

    shapes = setting.objective.network.shapes
    blocks = torch.split(setting.w0, [s.numel() for s in shapes], dim=1)
    params = [nn.Parameter(b.reshape(-1, *s).clone()) for b, s in zip(blocks, shapes, strict=True)]
    flow = MomentumFlow(params, members=4, **options)

    def closure():
        w = torch.cat([p.flatten(1) for p in params], dim=1)
        w.retain_grad()
        part = setting.objective.select(flow.active)
        leaf = w.detach().requires_grad_(True)
        evaluation = part.backward(leaf)
        w.backward(leaf.grad)
        return evaluation

    for _ in range(6):
        flow.step(closure)
    assert torch.equal(flow.flow_state.tried, whole.flow_state.tried)
    assert_close(flow.flow_state.displacement, whole.flow_state.displacement, rtol=0.0)
    assert [p.shape for p in params] == [(4, *s) for s in shapes]
    assert_close(torch.cat([p.flatten(1) for p in params], dim=1), flow.flow_state.weights(), rtol=0.0)


def test_one_evaluation_at_w0_and_one_each_tried_step():
    setting = problem()
    flow, closure = setting.flow(controller="reference", dt=1.0, steps=12)
    calls = []

    def counted():
        calls.append(1)
        return closure()

    for _ in range(3):
        flow.step(counted)
    assert int(flow.flow_state.accepted) < int(flow.flow_state.tried) == 36
    assert len(calls) == 37


def test_rejected_step_restores_weights_velocity_and_clock():
    flow, closure = problem().flow(tau=0.5, dt=0.05, steps=5)
    flow.step(closure)
    before = {name: x.clone() for name, x in flow.flow_state.tensors().items()}
    flow.flow_state.dt.fill_(1e6)
    flow.steps = 1
    flow.step(closure)
    after = flow.flow_state.tensors()
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed == {"tried", "dt", "gradient_change"}
    assert torch.equal(flow.param_groups[0]["params"][0], before["origin"] + before["displacement"])


def test_nothing_moves_after_the_stop():
    flow, closure = problem(seeds=(0, 1)).flow(events=[StepsTried(3)], steps=10)
    flow.step(closure)
    before = {name: x.clone() for name, x in flow.flow_state.tensors().items() if x is not None}
    w = flow.param_groups[0]["params"][0].clone()
    flow.step(closure)
    assert flow.trace is None
    assert all(torch.equal(x, flow.flow_state.tensors()[name]) for name, x in before.items())
    assert torch.equal(w, flow.param_groups[0]["params"][0])


def test_trace_has_every_step():
    flow, closure = problem(seeds=(0, 1)).flow(events=[StepsTried(3)], dt=0.01, steps=5)
    flow.step(closure)
    assert flow.trace.t.shape == flow.trace.loss.shape == (5, 2)
    assert (flow.trace.t.diff(dim=0) >= 0).all()
    assert torch.equal(flow.trace.t[-1], flow.flow_state.t)
    assert torch.equal(flow.trace.loss[2], flow.trace.loss[4])


def test_origin_is_shared_and_stays():
    setting = problem()
    w0 = setting.w0.clone()
    flow, closure = setting.flow(origin=w0, steps=4)
    flow.step(closure)
    assert flow.origin is w0
    assert torch.equal(w0, setting.w0)


def test_gradients_are_left_clear():
    flow, closure = problem().flow(steps=2)
    flow.step(closure)
    assert flow.param_groups[0]["params"][0].grad is None


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda w: None, "returned NoneType"),
        (lambda w: 1.0, "returned float"),
        (lambda w: w.sum(), r"shape \(2,\), but its loss has shape \(\)"),
        (lambda w: w.sum(dim=1)[:1], r"has shape \(1,\)"),
        (lambda w: Evaluation(w), r"has shape \(2, 3\)"),
    ],
)
def test_wrong_closure(returned, message):
    w = nn.Parameter(torch.ones(2, 3))

    def closure():
        w.square().sum().backward()
        return returned(w)

    with pytest.raises(TypeError, match=message):
        MomentumFlow([w], members=2).step(closure)


def test_closure_without_backward():
    w = nn.Parameter(torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="no gradient in parameter 0 of 1"):
        MomentumFlow([w], members=2).step(lambda: w.sum(dim=1))


def test_no_closure():
    with pytest.raises(TypeError, match="needs a closure"):
        MomentumFlow([nn.Parameter(torch.ones(3))]).step()


def test_reference_policy_needs_outputs():
    w = nn.Parameter(torch.ones(1, 3))

    def closure():
        loss = w.square().sum(dim=1)
        loss.sum().backward()
        return loss

    with pytest.raises(TypeError, match="outputs"):
        MomentumFlow([w], members=1, controller="reference").step(closure)


def test_no_state_before_the_first_step():
    with pytest.raises(RuntimeError, match="call step"):
        _ = MomentumFlow([nn.Parameter(torch.ones(3))]).flow_state


w = nn.Parameter(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("params", "options", "error", "message"),
    [
        ([w], {"dt": 0.0}, ConfigError, "dt"),
        ([w], {"dt": float("nan")}, ConfigError, "dt"),
        ([w], {"controller": "fast"}, ConfigError, "'fast'"),
        ([w], {"members": 3}, ValueError, r"size 3, but one has shape \(2, 3\)"),
        ([w], {"members": 2, "origin": w.data}, ConfigError, "clone"),
        ([{"params": [w]}, {"params": [nn.Parameter(torch.ones(1))]}], {}, ConfigError, "one parameter group"),
        ([w, nn.Parameter(torch.ones(1).double())], {}, ValueError, "one dtype"),
        ([], {}, ValueError, "empty parameter list"),
    ],
)
def test_refused(params, options, error, message):
    with pytest.raises(error, match=message):
        MomentumFlow(params, **options)


@pytest.mark.parametrize("policy", ["gradient_change", "reference"])
@pytest.mark.parametrize("loss", ["softhinge(20)", "quadratic_hinge"])
def test_converges_under_each_policy(policy, loss):
    margin = 1.0 if loss.startswith("soft") else 0.99  # the quadratic hinge has no slope at 1
    flow = problem(loss=loss, width=20).to_end(controller=policy, events=[MarginsMet(margin), StepsTried(3000)])
    assert flow.reasons == [StopReason.MARGINS_MET]
    assert float(flow.flow_state.loss) < 0.05


def test_dt_min_crosses_kinks():
    """Hinge on few samples jumps at every margin; with a shortest step a member slides along the corner to the end."""
    kinked = problem(loss="hinge")
    flow, closure = kinked.flow(
        events=[MarginsMet(), StepsTried(20_000)],
        controller=GradientChangeController(1e-2, 1e-4, dt_min=0.05),
        steps=100,
    )
    while bool(flow.flow_state.running.any() if flow.started else True):
        flow.step(closure)
    assert flow.reasons == [StopReason.MARGINS_MET]


def test_closure_that_raises_leaves_the_accepted_weights():
    flow, closure = problem().flow(steps=3)
    flow.step(closure)
    before = flow.param_groups[0]["params"][0].clone()

    def broken():
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        flow.step(broken)
    assert torch.equal(flow.param_groups[0]["params"][0], before)


def test_no_steps_is_an_error():
    flow, closure = problem().flow(steps=0)
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        flow.step(closure)


def test_reopen_lifts_a_limit_that_has_been_raised():
    flow, closure = problem().flow(events=[StepsTried(3)], steps=5)
    flow.step(closure)
    longer, again = problem().flow(events=[StepsTried(6)], steps=5)
    longer.load_state_dict(flow.state_dict())
    longer.reopen(wall=True)
    longer.step(again)
    assert longer.flow_state.tried.tolist() == [6]
    flow.reopen(wall=True)
    assert flow.reasons == [StopReason.MAX_STEPS]


def test_trial_that_is_never_finite_is_told_as_such():
    """Beyond w = 1/2 the loss is not a number: the member fails as non-finite, not for its step size."""
    w = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    flow = MomentumFlow([w], members=1, dt=0.1, steps=100)

    def closure():
        loss = torch.where(w[:, 0] > 0.5, w[:, 0], torch.nan)
        w.grad = torch.ones_like(w) if bool(loss.isfinite()) else torch.full_like(w, torch.nan)
        return loss

    while not flow.started or bool(flow.flow_state.running.any()):
        flow.step(closure)
    assert flow.reasons == [StopReason.NON_FINITE]
    assert_close(w.detach(), torch.full_like(w, 0.5), rtol=1e-14)
