"""Members that share a batch know nothing of one another."""

import functools

import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem
from torch import nn

from lazy_lightning.flow import (
    ConstantStep,
    GradientChangeController,
    MarginsMet,
    MomentumFlow,
    StepsTried,
    StopReason,
    TimeReached,
)

ALPHAS, SEEDS = (0.1, 1.0, 30.0), (0, 1)
E = len(ALPHAS) * len(SEEDS)


@functools.cache
def setting(dtype=torch.float64, loss="softhinge(5)"):
    return problem(ALPHAS, SEEDS, loss, samples=8, dtype=dtype)


def run(part, **options):
    """Until the margins are met; members leave after different numbers of bursts."""
    given = {"controller": "gradient_change", "dt": 1.0, "events": [MarginsMet(0.5), StepsTried(240)], "steps": 10}
    return part.to_end(**{**given, "compact": True, **options}).flow_state


def assert_same(state, reference, rows):
    """Sums in batched products and norms may group otherwise by the number of members, by a rounding a step."""
    for name in ("tried", "accepted", "reason"):
        assert torch.equal(getattr(state, name), getattr(reference, name)[rows]), name
    for name in ("t", "dt", "displacement", "loss", "gradient"):
        for mine, other in zip(getattr(state, name), getattr(reference, name)[rows], strict=True):
            assert_close(mine, other, rtol=1e-12)


@functools.cache
def together(**options):
    return run(setting(), **options)


def test_the_case_is_a_hard_one():
    """Members end at different times, some at the step limit, and have rejected steps."""
    state = together()
    assert len(set(state.tried.tolist())) >= 4
    assert {StopReason.MARGINS_MET, StopReason.MAX_STEPS} == {StopReason(r) for r in state.reason.tolist()}
    assert (state.accepted < state.tried).all()


@settings(max_examples=8)
@given(rows=st.permutations(range(E)).flatmap(lambda p: st.integers(1, E).map(lambda k: p[:k])))
def test_any_company_gives_the_same_trajectory(rows):
    assert_same(run(setting().member(rows)), together(), rows)


@pytest.mark.parametrize("options", [{"tau": 0.5}, {"mu": 3.0}], ids=str)
def test_with_momentum(options):
    rows = [4, 1]
    assert_same(run(setting().member(rows), **options), together(**options), rows)


def test_leaving_members_out_changes_nothing():
    assert_same(run(setting(), compact=False), together(), list(range(E)))


def test_by_bursts_of_any_length():
    assert_same(run(setting(), steps=7), together(), list(range(E)))


def test_underflow_does_not_depend_on_the_burst():
    """At a kink of the hinge with few samples no step is short enough: such a member ends at once."""
    flows = [run(problem(loss="hinge"), steps=steps, events=[StepsTried(2000)]) for steps in (7, 100)]
    assert [StopReason(int(f.reason)) for f in flows] == [StopReason.DT_UNDERFLOW] * 2
    assert_same(flows[0], flows[1], [0])


@pytest.mark.parametrize("tau", [0.0, 0.5])
@pytest.mark.parametrize("compact", [False, True])
def test_poisoned_member_takes_nobody_along(tau, compact):
    poisoned = setting().member(range(E))
    poisoned.w0[2, 3] = torch.nan
    state = run(poisoned, tau=tau, compact=compact)
    assert StopReason(int(state.reason[2])) is StopReason.NON_FINITE
    assert not state.displacement[2].any()
    assert int(state.tried[2]) == 0
    others = [0, 1, 3, 4, 5]
    assert_same(state.select(torch.tensor(others)), together(tau=tau) if tau else together(), others)


def test_member_that_blows_up_takes_nobody_along():
    """L = (|w|^2)^4 with a constant step far too long for the member of large w0."""
    w0 = torch.tensor([[0.1, 0.2], [3.0, 4.0], [0.3, 0.1]], dtype=torch.float64)

    def descend(rows):
        w = nn.Parameter(w0[rows].clone())
        flow = MomentumFlow(
            [w], members=len(rows), controller=ConstantStep(), dt=0.3, events=[TimeReached(6.0)], steps=40
        )

        def closure():
            loss = w.square().sum(dim=1) ** 4
            loss.sum().backward()
            return loss

        for _ in range(20):
            flow.step(closure)
        return flow

    flow = descend([0, 1, 2])
    assert flow.reasons[1].failed
    assert [flow.reasons[0], flow.reasons[2]] == [StopReason.T_MAX] * 2
    assert torch.equal(flow.flow_state.displacement[[0, 2]], descend([0, 2]).flow_state.displacement)
    assert flow.flow_state.displacement.isfinite().all()


def test_float32_members_too():
    """In float32 the groupings differ by its rounding, and 40 steps carry it on."""
    rows = [3, 0]
    options = {"controller": ConstantStep(), "events": [StepsTried(40)]}
    whole, part = (run(s, **options) for s in (setting(torch.float32), setting(torch.float32).member(rows)))
    for mine, other in zip(part.displacement, whole.displacement[rows], strict=True):
        assert_close(mine, other, rtol=1e-5)


def test_members_of_one_seed_share_their_start():
    w0 = setting().w0.view(len(ALPHAS), len(SEEDS), -1)
    assert torch.equal(w0[0], w0[2])
    assert not torch.equal(w0[0, 0], w0[0, 1])


def test_band_decides_for_each_member():
    """One rejects while another grows, in the same step."""
    flow = setting().run(controller=GradientChangeController(1e-3, 1e-4), dt=1.0, steps=1)
    assert set(flow.flow_state.accepted.tolist()) == {0, 1}
