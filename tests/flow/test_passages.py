"""Passages: points within long steps, on the trajectory to the integrator's tolerance."""

import itertools
import math

import numpy as np
import pytest
import torch
from problems import problem
from scipy.integrate import solve_ivp
from torch import nn
from torch.testing import assert_close

from lazy_lightning.flow import MomentumFlow, TimeReached
from lazy_lightning.flow.explicit import _NODES, _weights_within
from lazy_lightning.flow.interpolant import Within
from lazy_lightning.flow.passages import Passages
from lazy_lightning.ntk import ObjectiveClosure

NAMES = ["explicit", "implicit", "auto"]
RULES = {"gradient flow": {}, "momentum": {"tau": 0.7}, "by member": {"tau": [0.0, 0.7]}}
T_MAX = 6.0
WEIGHTS = torch.tensor([35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0], dtype=torch.float64)


def test_weights_within_an_explicit_step_are_of_order_4():
    share = torch.linspace(0, 1, 7, dtype=torch.float64)
    weights, nodes = _weights_within(share) + WEIGHTS, torch.tensor(_NODES, dtype=torch.float64)
    for power in range(4):
        assert_close(weights @ nodes**power, share ** (power + 1) / (power + 1), rtol=0, atol=1e-14)


# ---------------------------------------------------------------------- which points


def shares(rows, share):
    return Within(torch.stack([torch.tensor(rows).double(), share], dim=1), None)


def taken(*attempts, factor=2.0):
    """The passages of one burst, from the times before, between and after its attempts, of each of two members."""
    passages = Passages(factor)
    passages.begin()
    for before, after in itertools.pairwise(attempts):
        passages.add([0, 1], before, after, shares)
    return passages.taken(attempts[-1])


def times(passages):
    return [dict(zip(p.rows.tolist(), p.t.tolist(), strict=True)) for p in passages]


def test_points_are_those_of_the_grid_that_a_step_jumps_over():
    """8 and 32 are near the end, where the members are observed."""
    assert times(taken([1.5, 3.0], [9.0, 40.0])) == [{0: 2.0, 1: 4.0}, {0: 4.0, 1: 8.0}, {1: 16.0}]


def test_shares_are_those_of_the_step_that_passes():
    first, second = taken([1.0, 1.0], [3.0, 1.0], [11.0, 1.0])
    assert times([first, second]) == [{0: 2.0}, {0: 4.0}]
    assert first.displacement.tolist() == [[0.0, 0.5]]
    assert second.displacement.tolist() == [[0.0, 1 / 8]]


def test_few_points_are_taken_from_the_start_on():
    """8 is near the end, and 1 is not observed, but known."""
    assert times(taken([0.0, 0.0], [9.0, 0.0])) == [{0: 2.0}, {0: 4.0}]
    passages = Passages(2.0)
    passages.add([3], [0.0], [9.0], shares)
    found = [point.t for point in passages.between(3, 0.0, 9.0)]
    assert found == [2.0**k for k in range(-12, 4)]
    assert passages.between(3, 1.0, 4.0)[0].displacement.tolist() == [0.0, 2 / 9]


def test_short_steps_have_none():
    assert taken([1.0, 1.0], [1.3, 1.0], [1.9, 1.0]) == []


# ---------------------------------------------------------------------- where


def exact(setting, row, tau):
    """The displacement and velocity of a member as functions of t."""
    own = setting.member([row])
    size = own.w0.numel()

    def rate(t, state):
        g = own.gradient(state[:size])
        return -g if tau == 0 else np.concatenate([state[size:], -(state[size:] + g) / tau])

    start = np.zeros(size if tau == 0 else 2 * size)
    found = solve_ivp(rate, (0, T_MAX), start, method="DOP853", rtol=1e-10, atol=1e-13, dense_output=True)

    def at(t):
        state = found.sol(t)
        return state[:size], rate(t, state)[:size]

    return at


def flow_with_passages(setting, **options):
    """The flow after T_MAX and all passages of its bursts."""
    w = nn.Parameter(setting.w0.clone())
    flow = MomentumFlow([w], members=len(w), compact=True, steps=8, events=[TimeReached(T_MAX)], **options)
    closure = ObjectiveClosure(w, setting.objective, flow)
    flow.passages = Passages(1.5)
    found = []
    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
        found += flow.passages.taken(flow.clock().t)
    return flow, found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NAMES)
def test_passages_lie_on_the_trajectory(name, rule):
    """As near as the ends of steps do, and nearer with a smaller tolerance."""
    setting = problem(seeds=(0, 1))
    taus = torch.as_tensor(RULES[rule].get("tau", 0.0)).expand(2).tolist()
    truth = [exact(setting, row, tau) for row, tau in enumerate(taus)]
    largest = []
    for tol in (1e-3, 1e-5):
        _, passages = flow_with_passages(setting, integrator=name, tol=tol, **RULES[rule])
        assert sum(len(p.rows) for p in passages) >= 4
        errors = []
        for p in passages:
            for i, row in enumerate(p.rows.tolist()):
                dw, v = (torch.from_numpy(x) for x in truth[row](p.t[i].item()))
                end = torch.from_numpy(truth[row](T_MAX)[0]).norm()
                errors.append(((p.displacement[i] - dw).norm() / end).item())
                if p.velocity is not None and taus[row] > 0:
                    errors.append(((p.velocity[i] - v).norm() / end).item())
        largest.append(max(errors))
    assert largest[0] < 20e-3
    assert largest[1] < min(20e-5, largest[0] / 4)


@pytest.mark.parametrize("name", NAMES)
def test_collecting_passages_does_not_change_the_flow(name):
    setting = problem(seeds=(0, 1))
    collected, _ = flow_with_passages(setting, integrator=name)
    w = nn.Parameter(setting.w0.clone())
    flow = MomentumFlow([w], members=2, compact=True, steps=8, events=[TimeReached(T_MAX)], integrator=name)
    closure = ObjectiveClosure(w, setting.objective, flow)
    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
    for key, value in flow.flow_state.tensors().items():
        assert_close(collected.flow_state.tensors()[key], value, rtol=0, atol=0, equal_nan=True)


def test_euler_has_no_passages():
    assert flow_with_passages(problem(), integrator="euler")[1] == []


def test_points_do_not_depend_on_the_company():
    setting = problem((0.3, 3.0), (0,))
    _, together = flow_with_passages(setting, integrator="explicit")
    for row in (0, 1):
        _, alone = flow_with_passages(setting.member([row]), integrator="explicit")
        own = [(p.t[i], p.displacement[i]) for p in together for i in range(len(p.rows)) if p.rows[i] == row]
        assert len(own) == len(alone) > 0
        for (t, displacement), passage in zip(own, alone, strict=True):
            assert t == passage.t[0]
            assert math.isclose(displacement.norm(), passage.displacement[0].norm(), rel_tol=1e-9)
