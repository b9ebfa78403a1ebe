"""A loss that no longer falls ends a member; one that falls slowly, or not yet, does not."""

import copy
import dataclasses
import math

import pytest
import torch
from problems import Problem, problem
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import (
    ConstantStep,
    LossReached,
    MarginsMet,
    MomentumFlow,
    Stalled,
    StepsTried,
    StopReason,
    TimeReached,
)
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.objective.losses import build_loss

SHORT = Stalled(steps=200, t_factor=2.0)


def one_contradiction(loss: str, **options) -> Problem:
    """The last sample has the input of the first and the other label, so one of the two stays below its margin."""
    base = problem(loss=loss, width=8, **options)
    o = base.objective
    x, f0, y = o.x.clone(), o.f0.clone(), o.y.clone()
    x[-1], f0[:, -1], y[-1] = x[0], f0[:, 0], -y[0]
    return Problem(dataclasses.replace(o, x=x, f0=f0, y=y), base.w0)


@pytest.mark.parametrize("loss", ["softhinge(20)", "quadratic_hinge"])
def test_contradictory_labels_end(loss):
    setting = one_contradiction(loss, alphas=(0.1, 10.0))
    flow = setting.to_end(events=[MarginsMet(), SHORT, StepsTried(20_000)], steps=50)
    assert set(flow.reasons) <= {StopReason.STALLED, StopReason.STATIONARY}
    assert not any(reason.failed for reason in flow.reasons)
    assert (flow.flow_state.tried < 10_000).all()


def test_margins_that_can_be_met_are_waited_for():
    flow = problem(alphas=(0.01, 1.0, 100.0)).to_end(events=[MarginsMet(), SHORT, StepsTried(20_000)], steps=50)
    assert flow.reasons == [StopReason.MARGINS_MET] * 3


def one_weight(slope, *, dt=0.1, limit=2000, **options):
    """One weight from 0 by steps of the same size, of which the loss and its slope are given."""
    w = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
    events = [Stalled(steps=300, t_factor=4.0), StepsTried(limit)]
    flow = MomentumFlow([w], members=1, dt=dt, controller=ConstantStep(), events=events, steps=20, **options)

    def closure():
        loss = slope(w).sum(dim=1)
        loss.sum().backward()
        return loss

    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
    return flow


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda w: 1 + (w - 1).square(), StopReason.STALLED),
        (lambda w: torch.exp(-w), StopReason.MAX_STEPS),  # 1/t
        (lambda w: (1 + w) ** -0.5, StopReason.MAX_STEPS),  # t^-0.2
        (lambda w: 1e-3 - torch.sin(w.clamp(max=3) / 2) * 1e-6, StopReason.STALLED),
    ],
    ids=["floor", "inverse time", "power law", "plateau"],
)
def test_a_floor_is_told_from_a_slow_fall(loss, reason):
    assert one_weight(loss).reasons == [reason]


def test_a_saddle_is_left():
    """L = 4 - cosh(w) up to w = 1, from 1e-9: flat for a long time, while the gradient grows."""
    flow = one_weight(lambda w: 4.0 - torch.cosh((w + 1e-9).clamp(max=1.0)), dt=0.02, limit=2500)
    assert flow.reasons == [StopReason.STATIONARY]  # at w = 1
    assert float(flow.flow_state.loss) < 2.6


def test_goes_on_to_the_bit():
    """What has been waited for so far is in the saved state; one of 0.1.0 waits anew."""
    options = {"events": [MarginsMet(), SHORT, StepsTried(20_000)], "steps": 50}
    setting = one_contradiction("softhinge(20)")
    whole = setting.to_end(**options)
    first = setting.run(bursts=4, **options)
    second, closure = setting.flow(**options)
    second.load_state_dict(first.state_dict())
    old = copy.deepcopy(first.state_dict())
    for held in old["state"].values():
        del held["milestone"], held["gradient_scale"]
    third, _ = setting.flow(**options)
    third.load_state_dict(old)
    assert third.flow_state.milestone[0, :2].tolist() == [float(first.flow_state.t), 200.0]
    while second.flow_state.running.any():
        second.step(closure)
    assert torch.equal(second.flow_state.tried, whole.flow_state.tried)
    assert torch.equal(second.flow_state.displacement, whole.flow_state.displacement)


@pytest.mark.parametrize(
    ("stop", "waits"),
    [
        (StoppingCriteria(), False),
        (StoppingCriteria(margin_share=0.9), False),
        (StoppingCriteria(t_max=3.0), True),
        (StoppingCriteria(max_steps=3), True),
        (StoppingCriteria(max_wall=3.0), True),
        (StoppingCriteria(loss=0.1), False),
    ],
    ids=str,
)
def test_looked_for_where_nothing_else_is_sure_to_end_a_member(stop, waits):
    kinds = [type(event) for event in stop.events(build_loss("softhinge(20)"))]
    assert (Stalled in kinds) != waits
    assert kinds.count(MarginsMet) == 1
    assert TimeReached in kinds or LossReached in kinds or StepsTried in kinds or len(kinds) <= 2


@pytest.mark.parametrize("given", [{"steps": 0}, {"t_factor": 0.5}, {"t_factor": math.nan}, {"fall": 0.0}])
def test_refused(given):
    with pytest.raises(ConfigError, match="stall needs"):
        Stalled(**given)
