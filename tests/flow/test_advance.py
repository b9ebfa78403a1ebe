"""MomentumFlow.advance: each member to its own times, exactly, on the steps that an event at that time would give."""

import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from problems import problem
from test_resume import through_file
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import (
    ConstantStep,
    Evaluation,
    LossReached,
    MarginsMet,
    MomentumFlow,
    StepsTried,
    StopReason,
    TimeReached,
)

RULES = {"gradient flow": {}, "momentum": {"tau": 0.7}, "mu/t": {"mu": 3.0}}
TIMES = torch.tensor([0.3, 1.7, math.pi, 1e-3], dtype=torch.float64)

rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def ensemble():
    return problem((0.1, 10.0), (0, 1))


def counted(closure):
    calls = []

    def evaluate():
        calls.append(1)
        return closure()

    return evaluate, calls


def numbers(flow):
    return {name: x.clone() for name, x in flow.flow_state.tensors().items() if x is not None}


def assert_same(flow, expected, *, but=()):
    for name, x in numbers(flow).items():
        assert name in but or torch.equal(x, expected[name]), name


@rules
@pytest.mark.parametrize("compact", [False, True])
def test_lands_on_each_members_time(rule, compact):
    setting = ensemble()
    flow, closure = setting.flow(steps=20, compact=compact, **rule)
    loss = flow.advance(TIMES, closure)
    assert flow.flow_state.t.tolist() == TIMES.tolist()
    assert flow.reasons == [StopReason.T_MAX] * 4
    # The parameters are those of all members, where they have landed.
    assert_close(loss, setting.objective.backward(flow.rows.parameters[0]).loss)
    assert torch.equal(loss, flow.flow_state.loss)


@rules
def test_is_the_run_to_an_event_at_that_time(rule):
    flow, closure = ensemble().flow(steps=20, **rule)
    flow.advance(TIMES, closure)
    for row, t in enumerate(TIMES.tolist()):
        alone = ensemble().member([row]).to_end(events=[TimeReached(t)], **rule).flow_state
        assert flow.flow_state.tried[row] == alone.tried
        assert_close(flow.flow_state.displacement[row], alone.displacement[0])


@rules
def test_goes_on_where_it_was(rule):
    """On a grid of steps that are exact in binary, stopping on the way changes nothing."""
    ends = torch.tensor([4.0, 6.0, 2.0, 3.0], dtype=torch.float64)
    flows = []
    for shares in ([1.0], [0.25, 0.5, 0.5, 1.0]):
        flow, closure = ensemble().flow(controller=ConstantStep(), dt=0.125, steps=7, **rule)
        for share in shares:
            flow.advance(share * ends, closure)
        flows.append(flow)
    assert_same(flows[1], numbers(flows[0]))


@rules
def test_several_times_on_the_way(rule):
    """In one call as in one call each; members may wait, and times repeat."""
    times = torch.tensor([[0.0, 0.1, 0.0, 0.2], [0.3, 0.1, 0.0, 0.2], [0.3, 0.9, 0.0, 0.25], [1.0, 2.0, 0.0, 0.25]])
    flow, closure = ensemble().flow(steps=20, **rule)
    flow.advance(times, closure)
    other, closure = ensemble().flow(steps=20, **rule)
    for row in times:
        other.advance(row, closure)
    # Those who wait for others see no evaluations of their own: nothing of theirs differs.
    assert_same(flow, numbers(other))
    assert flow.flow_state.t.tolist() == times[-1].double().tolist()
    assert flow.flow_state.tried[2] == 0


def test_takes_given_steps_as_they_are():
    """A step size that is no bound, and a controller content with all: one evaluation a time."""
    times = torch.linspace(0.1, 3.0, 17, dtype=torch.float64).unsqueeze(1)
    flow, closure = ensemble().flow(controller=ConstantStep(), dt=1e100, steps=50)
    closure, calls = counted(closure)
    flow.advance(times, closure)
    assert len(calls) == 1 + 17
    assert flow.flow_state.t.tolist() == [3.0] * 4


@rules
@pytest.mark.parametrize("times", [[0.0] * 4, [0.3, 0.1, 1e-3, 1e-4], [-1.0, 0.0, 0.3, 0.2]], ids=str)
def test_nothing_is_done_for_members_that_are_there(rule, times):
    flow, closure = ensemble().flow(steps=20, **rule)
    flow.advance(torch.tensor([0.3, 0.1, 0.3, 0.2]), closure)
    before = numbers(flow)
    closure, calls = counted(closure)
    flow.advance(torch.tensor(times), closure)
    assert calls == []
    assert_same(flow, before)


@rules
def test_members_that_wait_are_not_moved_by_those_that_go_far(rule):
    """Neither at t = 0, nor far past the time asked for: under momentum a step back by 1e4 tau would be infinite."""
    flow, closure = ensemble().flow(steps=20, **(rule and {**rule, "tau": 1e-3} if "tau" in rule else rule))
    flow.advance(torch.tensor([0.0, 3.0, 1.0, 0.0]), closure)
    before = numbers(flow)
    flow.advance(torch.tensor([0.0, 0.0, -5.0, 2.0]), closure)
    for name, x in numbers(flow).items():
        assert x.isfinite().all(), name
        assert torch.equal(x[:3], before[name][:3]), name
    assert flow.flow_state.t[3] == 2.0


def test_one_time_for_all_and_no_member_axis():
    model, x = nn.Linear(3, 1).double(), torch.ones(5, 3, dtype=torch.float64)
    flow = MomentumFlow(model.parameters(), steps=9)

    def closure():
        flow.zero_grad()
        loss = (model(x) - 2).square().mean()
        loss.backward()
        return loss

    flow.advance(torch.tensor(0.7), closure)
    assert flow.flow_state.t.tolist() == [float(torch.tensor(0.7))]


@pytest.mark.parametrize("times", [[math.inf, 1.0, 1.0, 1.0], [1.0, math.nan, 1.0, 1.0]], ids=str)
def test_times_that_are_never_reached_are_refused(times):
    flow, closure = ensemble().flow(steps=20)
    with pytest.raises(ConfigError, match="advance needs finite times"):
        flow.advance(torch.tensor(times), closure)
    assert not flow.started


@pytest.mark.parametrize("event", [StepsTried(7), MarginsMet(-1e9), LossReached(0.9)], ids=lambda e: e.reason.name)
def test_other_events_end_a_member_for_good(event):
    flow, closure = ensemble().flow(steps=20, events=[event])
    flow.advance(torch.full((4,), 50.0), closure)
    before = numbers(flow)
    flow.advance(torch.full((4,), 60.0), closure)
    assert flow.reasons == [event.reason] * 4
    assert (flow.flow_state.t < 50).all()
    assert_same(flow, before)


def test_nobody_goes_past_an_events_t_max():
    flow, closure = ensemble().flow(steps=20, events=[TimeReached(0.5)])
    flow.advance(torch.tensor([0.2, 0.5, 0.9, 9.0]), closure)
    assert flow.flow_state.t.tolist() == [float(torch.tensor(0.2)), 0.5, 0.5, 0.5]
    tried = flow.flow_state.tried.clone()
    flow.advance(torch.full((4,), 3.0), closure)
    assert flow.flow_state.t.tolist() == [0.5] * 4
    assert torch.equal(flow.flow_state.tried[1:], tried[1:])


def test_stationary_member_stays():
    w = nn.Parameter(torch.tensor([[0.0], [1.0]]))
    flow, closure = quadratic(w, dt=0.1)
    flow.advance(torch.tensor([1.0, 1.0]), closure)
    assert flow.reasons == [StopReason.STATIONARY, StopReason.T_MAX]
    assert flow.flow_state.t[1] == 1.0


def quadratic(w, **options):
    """w' = -w."""
    flow = MomentumFlow([w], members=len(w), steps=50, **options)

    def closure():
        loss = 0.5 * w.square().sum(dim=1)
        loss.sum().backward()
        return Evaluation(loss)

    return flow, closure


@pytest.mark.parametrize("tau", [0.0, 0.2])
def test_exponential_decay_at_first_order(tau):
    """exp(-t); under momentum w'' = -(w' + w)/tau from rest, whose roots are real for tau < 1/4."""
    times = torch.tensor([0.5, 2.0], dtype=torch.float64)
    a, b = ((-1 + s * math.sqrt(1 - 4 * tau)) / (2 * tau) if tau else -1.0 for s in (1, -1))
    exact = torch.exp(-times) if tau == 0 else (b * torch.exp(a * times) - a * torch.exp(b * times)) / (b - a)
    errors = []
    for dt in (0.02, 0.01, 0.005):
        w = nn.Parameter(torch.ones(2, 1, dtype=torch.float64))
        flow, closure = quadratic(w, controller=ConstantStep(), dt=dt, tau=tau)
        flow.advance(times, closure)
        errors.append((w.detach()[:, 0] - exact).abs().numpy())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.06)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("compact", [False, True])
def test_non_finite_member_ends_and_leaves_the_others_alone(compact):
    """Its gradient is NaN wherever it goes: dt shrinks to nothing, and the loop ends."""
    setting = ensemble()
    flow, plain = setting.flow(steps=50, compact=compact)

    def closure():
        evaluation = plain()
        first = 0 if flow.active is None else (flow.active == 0).nonzero().flatten()
        if flow.started:
            flow.rows.parameters[0].grad[first] = torch.nan
        return evaluation

    flow.advance(TIMES, closure)
    assert flow.reasons == [StopReason.NON_FINITE] + [StopReason.T_MAX] * 3
    assert flow.flow_state.t.tolist() == [0.0, *TIMES[1:].tolist()]
    other, closure = setting.flow(steps=50)
    other.advance(TIMES, closure)
    assert_close(flow.flow_state.displacement[1:], other.flow_state.displacement[1:])


def test_failed_from_the_start():
    setting = ensemble()
    setting.w0[1] = torch.nan
    flow, closure = setting.flow(steps=50)
    flow.advance(TIMES, closure)
    assert flow.reasons[1] is StopReason.NON_FINITE
    assert flow.flow_state.t[[0, 2, 3]].tolist() == TIMES[[0, 2, 3]].tolist()


def test_closure_that_raises_leaves_the_flow_usable():
    flow, closure = ensemble().flow(steps=20)
    flow.start(closure)
    dynamics, calls = flow.dynamics, []

    def breaks():
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("broken")
        return closure()

    with pytest.raises(RuntimeError, match="broken"):
        flow.advance(TIMES, breaks)
    assert flow.dynamics is dynamics
    assert flow.steps == 20
    assert torch.equal(flow.rows.parameters[0].detach(), flow.flow_state.weights())
    flow.advance(TIMES, closure)
    assert flow.flow_state.t.tolist() == TIMES.tolist()


def test_costs_the_steps_that_are_needed():
    """As many evaluations as the member that needs most: bursts end where the last one arrives."""
    flow, closure = ensemble().flow(controller=ConstantStep(), dt=0.01, steps=50)
    closure, calls = counted(closure)
    flow.advance(torch.tensor([0.1, 0.5, 1.2, 0.2], dtype=torch.float64), closure)
    assert len(calls) <= 1 + 121
    assert flow.steps == 50


@rules
def test_resumed_is_undisturbed_to_the_bit(rule):
    flow, closure = ensemble().flow(steps=20, **rule)
    flow.advance(TIMES, closure)
    saved = through_file(flow.state_dict())
    flow.advance(2 * TIMES, closure)
    other, closure = ensemble().flow(steps=20, **rule)
    other.load_state_dict(saved)
    other.advance(2 * TIMES, closure)
    assert_same(other, numbers(flow))


def test_float32_weights_land_too():
    flow, closure = problem((0.1, 10.0), (0, 1), dtype=torch.float32).flow(steps=20)
    flow.advance(TIMES, closure)
    assert flow.flow_state.t.tolist() == TIMES.tolist()
