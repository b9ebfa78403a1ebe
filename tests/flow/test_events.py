"""What ends a member, one event at a time and in order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import problem
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import (
    ConstantStep,
    Decision,
    Evaluation,
    GradientChangeController,
    LossReached,
    MarginsMet,
    MomentumFlow,
    StepsTried,
    StopReason,
    TimeReached,
)
from lazy_lightning.flow.events import Moment

R = StopReason
NAN = float("nan")


def moment(t=1.0, tried=10, loss=0.5, start=1.0, margins=(2.0,)):
    evaluation = Evaluation(torch.tensor([loss]), margins=torch.tensor([margins]))
    return Moment(torch.tensor([t]), torch.tensor([tried]), torch.tensor([start]), evaluation)


@pytest.mark.parametrize(
    ("event", "where", "holds"),
    [
        (MarginsMet(), {"margins": (1.0, 1.5)}, True),
        (MarginsMet(), {"margins": (1.0, 0.999)}, False),
        (MarginsMet(), {"margins": (2.0, NAN)}, False),
        (MarginsMet(margin=0.0), {"margins": (0.0, 0.1)}, True),
        (MarginsMet(share=0.5), {"margins": (2.0, -2.0)}, True),
        (MarginsMet(share=0.51), {"margins": (2.0, -2.0)}, False),
        (LossReached(0.5), {"loss": 0.5}, True),
        (LossReached(0.5), {"loss": 0.51}, False),
        (LossReached(0.5), {"loss": 1.0, "start": 3.0}, True),
        (LossReached(0.5), {"loss": NAN}, False),
        (TimeReached(1.0), {"t": 1.0}, True),
        (TimeReached(1.0), {"t": 0.99}, False),
        (StepsTried(10), {"tried": 10}, True),
        (StepsTried(11), {"tried": 10}, False),
    ],
)
def test_holds(event, where, holds):
    assert event(moment(**where)).tolist() == [holds]


@pytest.mark.parametrize(
    ("share", "samples", "needed"),
    [(0.998, 1000, 998), (0.1, 30, 3), (0.7, 10, 7), (1.0, 7, 7), (0.001, 7, 1), (0.9999, 1000, 1000), (0.29, 100, 29)],
)
def test_share_counts_samples(share, samples, needed):
    """0.1 * 30 is 3.0000000000000004 in floating point, and still three samples."""
    event = MarginsMet(share=share)
    for count in (needed - 1, needed):
        margins = (1.0,) * count + (0.0,) * (samples - count)
        assert event(moment(margins=margins)).tolist() == [count >= needed]


@given(k=st.integers(1, 2000), n=st.integers(1, 2000))
def test_share_k_of_n_is_k_samples(k, n):
    k = min(k, n)
    event = MarginsMet(share=k / n)
    assert event(moment(margins=(1.0,) * k + (0.0,) * (n - k))).tolist() == [True]
    assert event(moment(margins=(1.0,) * (k - 1) + (0.0,) * (n - k + 1))).tolist() == [False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginsMet(share=0.0), "margin_share"),
        (lambda: MarginsMet(share=1.1), "margin_share"),
        (lambda: LossReached(1.0), "fraction"),
        (lambda: LossReached(0.0), "fraction"),
        (lambda: TimeReached(0.0), "t_max"),
        (lambda: TimeReached(NAN), "t_max"),
        (lambda: StepsTried(0), "max_steps"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# ---------------------------------------------------------------- in a flow


def valley(curvature=1.0, **options):
    """L = curvature w^2/2 of one weight at w0 = 1, with F = w as its output and margin."""
    w = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    flow = MomentumFlow([w], members=1, **options)

    def closure():
        loss = curvature * w.square().sum(dim=1) / 2
        loss.sum().backward()
        return Evaluation(loss, outputs=w, margins=1 - w)

    return flow, closure


class Never:
    """Rejects every step."""

    growth, watches_outputs = 1.0, False

    def __call__(self, dt, change):
        return Decision(torch.zeros_like(dt, dtype=torch.bool), dt / 10)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([MarginsMet(margin=0.5)], R.MARGINS_MET),
        ([LossReached(0.1)], R.LOSS_REACHED),
        ([TimeReached(0.35)], R.T_MAX),
        ([StepsTried(3)], R.MAX_STEPS),
        ([MarginsMet(margin=0.5), LossReached(0.25)], R.MARGINS_MET),  # w = 1/2 is both: the first in order
        ([LossReached(0.25), MarginsMet(margin=0.5)], R.LOSS_REACHED),
        ([TimeReached(0.5), StepsTried(1)], R.T_MAX),
        ([StepsTried(1), TimeReached(0.5)], R.MAX_STEPS),
        ([StepsTried(100), TimeReached(0.35)], R.T_MAX),
    ],
)
def test_reason_recorded(events, reason):
    flow, closure = valley(controller=ConstantStep(), dt=0.5, events=events, steps=30)
    flow.step(closure)
    assert flow.reasons == [reason]


def test_step_limit_counts_rejected_steps():
    flow, closure = valley(controller=Never(), events=[StepsTried(4)], steps=10)
    flow.step(closure)
    assert (flow.reasons, flow.flow_state.tried.tolist(), flow.flow_state.accepted.tolist()) == (
        [R.MAX_STEPS],
        [4],
        [0],
    )


def test_other_events_wait_for_an_accepted_step():
    """The margin is met at the rejected trial, and not at w0, where the member stays."""
    flow, closure = valley(
        controller=GradientChangeController(1e-3, 1e-3), dt=0.9, events=[MarginsMet(margin=0.5)], steps=1
    )
    flow.step(closure)
    assert (flow.reasons, flow.flow_state.accepted.tolist()) == ([R.RUNNING], [0])


def test_step_shortened_for_t_max_leaves_dt():
    flow, closure = valley(
        controller=GradientChangeController(1e9, 1e9, growth=2.0), dt=0.5, events=[TimeReached(1.0)], steps=2
    )
    flow.step(closure)
    assert flow.flow_state.t.tolist() == [1.0]
    assert flow.flow_state.dt.tolist() == [1.0]  # grown by the first step, not by the second, which took 0.5 of it


def test_rejected_shortened_step_is_retried_shorter():
    flow, closure = valley(
        controller=GradientChangeController(1e-3, 1e-3, shrink=10), dt=5.0, events=[TimeReached(0.5)], steps=1
    )
    flow.step(closure)
    assert (flow.flow_state.t.tolist(), flow.flow_state.dt.tolist()) == ([0.0], [0.05])


def test_gradient_exactly_zero_is_stationary():
    flow, closure = valley(controller=ConstantStep(), dt=1.0, steps=3)  # w = 1 - 1
    flow.step(closure)
    assert flow.reasons == [R.STATIONARY]
    assert (flow.flow_state.t.tolist(), flow.flow_state.tried.tolist()) == (
        [1.0],
        [1],
    )  # at once, not when the burst ends


def test_moving_member_at_zero_gradient_is_not_stationary():
    flow, closure = valley(curvature=0.0, tau=1.0, controller=ConstantStep(), steps=1)
    flow.start(closure)
    flow.flow_state.velocity.fill_(1.0)
    flow.step(closure)
    assert flow.reasons == [R.RUNNING]
    assert float(flow.flow_state.displacement) > 0.3


def test_steps_too_short_to_move_t_underflow():
    flow, closure = valley(controller=Never(), steps=20)
    flow.start(closure)
    flow.flow_state.t.fill_(1.0)
    flow.step(closure)
    assert flow.reasons == [R.DT_UNDERFLOW]
    assert flow.reasons[0].failed


def test_margins_need_a_closure_that_reports_them():
    flow, closure = problem(margins=False).flow(events=[MarginsMet()])
    with pytest.raises(ValueError, match="margins"):
        flow.step(closure)


def test_stopped_from_outside():
    flow, closure = problem(seeds=(0, 1)).flow(events=[StepsTried(1)], steps=1)
    flow.start(closure)
    flow.flow_state.reason[0] = int(R.T_MAX)
    flow.stop_running(R.MAX_WALL)
    assert flow.reasons == [R.T_MAX, R.MAX_WALL]


def test_every_reason_has_its_sentence():
    assert len({reason.sentence for reason in R}) == len(R)
