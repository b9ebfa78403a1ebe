"""What a gradient of zero means: an end where a piecewise linear loss is flat or nothing but rounding is left, else a
step that was too long."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Problem, problem
from torch import nn

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
from lazy_lightning.objective.losses import LOSSES, build_loss


def bowl(curvature=1.0, dtype=torch.float64, weights=3, **options):
    """L = curvature ‖w‖^2/2 from w0 = 1, by a closure that says nothing but the loss."""
    w = nn.Parameter(torch.ones(1, weights, dtype=dtype))
    flow = MomentumFlow([w], members=1, **options)

    def closure():
        loss = curvature * w.square().sum(dim=1) / 2
        loss.sum().backward()
        return loss

    return w, flow, closure


@pytest.mark.parametrize("policy", ["gradient_change", GradientChangeController(1e-2, 1e-4, dt_min=1e-4)], ids=str)
@settings(max_examples=3, deadline=None)
@given(power=st.integers(-6, 6))
def test_step_onto_a_minimum_is_too_long(policy, power):
    """dt = 1/curvature lands on w = 0 exactly: e^-2 at t = 2/curvature, whatever the scale."""
    curvature = 2.0**power
    w, flow, closure = bowl(
        curvature, controller=policy, dt=1 / curvature, events=[TimeReached(2 / curvature)], steps=250
    )
    flow.step(closure)
    assert flow.reasons == [StopReason.T_MAX]
    assert float(w.detach().max()) == pytest.approx(math.exp(-2), rel=0.02)


def test_constant_step_takes_what_it_is_given():
    _, flow, closure = bowl(controller=ConstantStep(), dt=1.0, steps=3)
    flow.step(closure)
    assert (flow.reasons, flow.flow_state.t.tolist()) == ([StopReason.STATIONARY], [1.0])


@pytest.mark.parametrize("reported", [True, False])
def test_step_into_the_flat_part_of_a_hinge_is_an_end(reported):
    """L = max(0, 1 - w): the closure says that it is flat there, or the step is refined as that of a smooth loss."""
    w = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    flow = MomentumFlow([w], members=1, dt=0.3, events=[MarginsMet(), StepsTried(40)], steps=40)

    def closure():
        loss = (1 - w).relu().sum(dim=1)
        loss.sum().backward()
        return Evaluation(loss, margins=w, flat=(w >= 1).all(dim=1) if reported else None)

    flow.step(closure)
    assert flow.reasons == [StopReason.MARGINS_MET if reported else StopReason.MAX_STEPS]
    assert not reported or flow.flow_state.tried.tolist() == [4]


@pytest.mark.parametrize("name", LOSSES)
def test_only_the_hinge_is_flat(name):
    loss, y = build_loss(name), torch.tensor([1.0, -1.0])
    flat = loss.flat(torch.tensor([[1.0, -2.0], [3.0, -0.9]]), y)
    assert (flat is None) == (name != "hinge")
    assert flat is None or flat.tolist() == [True, False]


# ---------------------------------------------------------------- nothing but rounding


def contradictory(alphas=(1.0,), copies=2, **options) -> Problem:
    """Each sample twice, with both labels."""
    base = problem(alphas=alphas, samples=6, width=8, **options)
    o = base.objective
    x, f0 = torch.cat([o.x] * copies), torch.cat([o.f0] * copies, dim=1)
    y = torch.cat([o.y.new_ones(6), -o.y.new_ones(6)])
    return Problem(dataclasses.replace(o, x=x, y=y, f0=f0), base.w0)


def to_end(setting: Problem, **options) -> MomentumFlow:
    flow, closure = setting.flow(steps=100, **options)
    w = flow.param_groups[0]["params"][0]
    flow.start(lambda: closure()._replace(gradient_scale=setting.objective.gradient_scale(w)))
    while flow.flow_state.running.any():
        flow.step(closure)
    return flow


@pytest.mark.parametrize(("tau", "dtype"), [(0.0, torch.float64), (0.0, torch.float32), (1.0, torch.float32)], ids=str)
@pytest.mark.parametrize("loss", ["softhinge(20)", "hinge", "mse"])
def test_labels_that_cancel_are_stationary(loss, dtype, tau):
    setting = contradictory((0.01, 1.0, 100.0), loss=loss, dtype=dtype, margins=loss != "mse")
    flow = to_end(setting, events=[StepsTried(500)], tau=tau)
    assert flow.reasons == [StopReason.STATIONARY] * 3


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_solved_least_squares_are_stationary(seed, scale):
    """To rounding, whatever the unit of the weights."""
    draw = torch.Generator().manual_seed(seed)
    A, b = (torch.randn(*s, dtype=torch.float64, generator=draw) for s in ((4, 3), (4,)))
    w = nn.Parameter(torch.zeros(1, 3, dtype=torch.float64))
    q, _ = torch.linalg.qr(A)  # well conditioned: few steps
    flow = MomentumFlow(
        [w], members=1, dt=scale, controller=GradientChangeController(0.1, 0.02), events=[StepsTried(5000)], steps=50
    )

    def closure():
        loss = (w @ q.T / scale - b).square().sum(dim=1) / 2 * scale
        loss.sum().backward()
        return loss

    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
    assert flow.reasons == [StopReason.STATIONARY]
    assert float(flow.flow_state.gradient_norm) < 1e-12 * float(flow.flow_state.gradient_scale)


def test_small_gradients_that_are_no_rounding_go_on():
    """exp(-w) falls for ever, far below the rounding of its start."""
    w = nn.Parameter(torch.zeros(1, 1, dtype=torch.float32))
    flow = MomentumFlow(
        [w], members=1, dt=0.1, controller=GradientChangeController(0.1, 0.02), events=[TimeReached(1e12)], steps=900
    )

    def closure():
        loss = torch.exp(-w).sum(dim=1)
        loss.sum().backward()
        return loss

    flow.step(closure)
    assert flow.reasons == [StopReason.T_MAX]
    assert float(w.detach()) == pytest.approx(math.log(1e12), rel=0.02)


def test_member_that_no_sample_moves_has_failed():
    """At alpha = 1e200 the weight 1/alpha^2 of the loss underflows; the other member does not mind."""
    flow = to_end(problem(alphas=(1.0, 1e200)), events=[StepsTried(3)])
    assert flow.reasons == [StopReason.MAX_STEPS, StopReason.NO_GRADIENT]
    assert flow.reasons[1].failed


@pytest.mark.parametrize("kind", ["network", "kernel"])
def test_scale_is_that_of_contributions_that_do_not_cancel(kind):
    """On average over weights the squared scale is the sum of the samples' squared contributions; here to a factor."""
    setting = contradictory((0.1,), loss="mse", margins=False)
    o, w = setting.objective, setting.w0.clone().requires_grad_(True)
    if kind == "kernel":
        from lazy_lightning.modules.kernel_objective import KernelObjective

        phi = torch.randn(1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        o = KernelObjective(phi, None, o.centering, o.loss, o.y, 1, False)
        w = torch.zeros(1, 12, dtype=torch.float64)
        each = [phi[:, i : i + 1] * o.y[i] / (0.1 * 12) for i in range(12)]
        norms = torch.stack([torch.linalg.vector_norm(g) for g in each])
    else:
        norms = []
        for i in range(12):
            leaf = setting.w0.clone().requires_grad_(True)
            dataclasses.replace(o, x=o.x[i : i + 1], y=o.y[i : i + 1], f0=o.f0[:, i : i + 1]).backward(leaf)
            norms.append(torch.linalg.vector_norm(leaf.grad) / 12)
        norms = torch.stack(norms)
    ratio = float(o.gradient_scale(w)) / float(norms.square().sum().sqrt())
    assert 0.2 < ratio < 5
