"""Trajectories against exact solutions of the same differential equation, and the order at which they converge."""

from functools import cache

import numpy as np
import pytest
import torch
from problems import problem
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from lazy_lightning.flow import ConstantStep, GradientChangeController, StepsTried, TimeReached

T_MAX = 2.0
SMALL = {"softplus hinge": {"loss": "softhinge(5)"}, "mse": {"loss": "mse", "alphas": (0.5,)}}


@cache
def exact(case, tau=0.0, mu=None):
    """dw at T_MAX by an 8th-order method at 1e-11."""
    setting = problem(**SMALL[case])
    size = setting.w0.numel()
    # With tau = t/mu the solution that is finite at t = 0 starts as v = -g. It is entered at t0 with errors of
    # order t0 in v and t0^2 in w, which decay as (t0/t)^mu: far below 1e-11.
    t0 = 0.0 if mu is None else 1e-6
    g0 = setting.gradient(np.zeros(size))
    start = np.zeros(size) if tau == 0 and mu is None else np.zeros(2 * size)
    if mu is not None:
        start = np.concatenate([-t0 * g0, -g0])

    def rate(t, state):
        g = setting.gradient(state[:size])
        if len(state) == size:
            return -g
        v = state[size:]
        return np.concatenate([v, -(v + g) / (tau if mu is None else t / mu)])

    solution = solve_ivp(rate, (t0, T_MAX), start, method="DOP853", rtol=1e-11, atol=1e-13)
    assert solution.success
    return solution.y[:size, -1]


def end(setting, controller, dt, **rule):
    """dw at T_MAX, landed on to the bit."""
    flow = setting.to_end(controller=controller, dt=dt, events=[TimeReached(T_MAX), StepsTried(20_000)], **rule)
    assert flow.flow_state.t.tolist() == [T_MAX]
    return flow.flow_state.displacement.numpy().ravel()


def slope(settings, errors):
    return np.polyfit(np.log(settings), np.log(errors), 1)[0]


# The error's next term is of relative order dt; under mu/t, whose memory is as short as the time since the start,
# dt log(dt), still 2% from one halving to the next at these steps.
RULES = {"gradient flow": ({}, 0.005), "momentum": ({"tau": 0.7}, 0.01), "mu/t": ({"mu": 3.0}, 0.05)}


@pytest.mark.parametrize(("rule", "margin"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("case", SMALL)
def test_constant_step_converges_at_first_order(case, rule, margin):
    steps = [T_MAX / n for n in (200, 400, 800)]
    setting = problem(**SMALL[case])
    errors = [np.linalg.norm(end(setting, ConstantStep(), dt, **rule) - exact(case, **rule)) for dt in steps]
    assert slope(steps, errors) == pytest.approx(1.0, abs=margin), errors
    assert errors[-1] < 0.005 * np.linalg.norm(exact(case, **rule))


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_adaptive_step_converges_as_the_root_of_its_tolerance(case, tau):
    """r ~ dt^2, so a first-order rule errs by r_max^(1/2).

    A momentum flow starts at rest, where r ~ (t dt)^2 bounds dt by r_max^(1/2)/t alone: summed from the first step
    on, that adds a factor log(1/r_max).
    """
    tolerances = np.array([1e-3, 1e-4, 1e-5, 1e-6])
    setting = problem(**SMALL[case])
    # A gentle shrink keeps dt just under its bound, where dividing by ten would scatter it over a decade.
    ends = [end(setting, GradientChangeController(r, r / 2, growth=1.2, shrink=1.2), 0.2, tau=tau) for r in tolerances]
    errors = np.array([np.linalg.norm(dw - exact(case, tau)) for dw in ends])
    factor = 1.0 if tau == 0 else np.log(1 / tolerances)
    assert slope(tolerances, errors / factor) == pytest.approx(0.5, abs=0.03), errors


def linear_system(setting):
    """A and b of dw' = -(A dw - b), for the one-layer network under the square loss."""
    x, y = setting.objective.x.numpy(), setting.objective.y.numpy()
    n, d = x.shape
    return x.T @ x / (n * d), x.T @ y / (n * np.sqrt(d)) / float(setting.objective.centering.alpha)


def by_matrix_exponential(setting, tau):
    A, b = linear_system(setting)
    d = len(b)
    if tau == 0:
        system, start = np.block([[-A, b[:, None]], [np.zeros((1, d + 1))]]), np.zeros(d + 1)
    else:
        identity, zero = np.eye(d), np.zeros((d, d))
        system = np.block(
            [
                [zero, identity, np.zeros((d, 1))],
                [-A / tau, -identity / tau, b[:, None] / tau],
                [np.zeros((1, 2 * d + 1))],
            ]
        )
        start = np.zeros(2 * d + 1)
    start[-1] = 1.0  # the inhomogeneity rides along as a constant
    return (expm(T_MAX * system) @ start)[:d]


@pytest.mark.parametrize("tau", [0.0, 0.1, 3.0])
def test_linear_model_against_the_matrix_exponential(tau):
    setting = problem(alphas=(0.5,), loss="mse", depth=0)
    expected = by_matrix_exponential(setting, tau)
    steps = [T_MAX / n for n in (100, 200, 400, 800)]
    errors = [np.linalg.norm(end(setting, ConstantStep(), dt, tau=tau) - expected) for dt in steps]
    assert slope(steps, errors) == pytest.approx(1.0, abs=0.02), errors
    assert errors[-1] < 0.01 * np.linalg.norm(expected)


def test_momentum_tends_to_gradient_flow():
    """tau -> 0 is tau = 0, at a step that does not resolve tau."""
    setting = problem()
    flows = [end(setting, ConstantStep(), 0.05, tau=tau) for tau in (0.0, 1e-4)]
    # expm1(-500) rounds to -1: the same numbers, by lerp instead of a copy.
    np.testing.assert_allclose(flows[1], flows[0], rtol=1e-13)


def test_landing_on_t_max_is_exact_whatever_the_clock():
    """t + (t_max - t) is not t_max in one case of twenty, when the last step is more than half of it."""
    setting = problem()
    draw = torch.Generator().manual_seed(0)
    for t_max in (0.1 + torch.rand(60, generator=draw, dtype=torch.float64)).tolist():
        flow = setting.run(
            dt=0.18 * t_max,
            controller=GradientChangeController(1e9, 1e9, growth=9.0),
            events=[TimeReached(t_max)],
            steps=20,
        )
        assert (flow.flow_state.t.tolist(), flow.flow_state.accepted.tolist()) == ([t_max], [2])
