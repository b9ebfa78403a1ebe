"""Step rules against their closed forms in 50 digits."""

from decimal import Decimal, getcontext

import pytest
import torch
from closeness import assert_close
from scipy.integrate import solve_ivp
from scipy.special import j1
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import ConstantStep, Momentum, MomentumFlow, NesterovFlow, TimeReached
from lazy_lightning.flow.rules import step_rule

getcontext().prec = 50
RATIOS = [10.0**k for k in range(-12, 4)]


def seconds(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_minus_exp(x):
    return 1 - (-x).exp()


def constant_gradient_flow(g, dt, **options):
    """The flow of L = g . w, whose gradient never changes."""
    w = nn.Parameter(torch.zeros_like(g))
    flow = MomentumFlow([w], members=len(g), controller=ConstantStep(), dt=dt, **options)

    def closure():
        loss = (g * w).sum(dim=1)
        loss.sum().backward()
        return loss

    return flow, closure


@pytest.mark.parametrize("ratio", RATIOS)
def test_gain_in_full_precision(ratio):
    tau, dt = 0.3, 0.3 * ratio
    expected = float(one_minus_exp(Decimal(dt) / Decimal(tau)))
    # Two roundings: of dt/tau, and of expm1.
    assert float(Momentum(tau).gain(seconds(0.0), seconds(dt))) == pytest.approx(expected, rel=4e-16)


@pytest.mark.parametrize("ratio", RATIOS)
def test_frozen_gradient_closed_form(ratio):
    """v_k = -(1 - e^(-k dt/tau)) g and dw_k = dt sum_j v_j, whatever dt/tau."""
    tau, steps = 0.7, 5
    g, dt = torch.tensor([[3.0, -0.1]], dtype=torch.float64), tau * ratio
    flow, closure = constant_gradient_flow(g, dt, tau=tau, steps=steps)
    flow.step(closure)
    x = Decimal(dt) / Decimal(tau)
    shares = [float(one_minus_exp(k * x)) for k in range(1, steps + 1)]
    assert_close(flow.flow_state.velocity, -shares[-1] * g, rtol=2e-15)  # five lerps
    assert_close(flow.flow_state.displacement, -dt * sum(shares) * g, rtol=2e-15)


def test_each_member_has_its_own_tau():
    g = torch.ones(3, 2, dtype=torch.float64)
    taus = [0.0, 0.5, 100.0]
    flow, closure = constant_gradient_flow(g, 0.25, tau=taus, steps=3)
    flow.step(closure)
    for row, tau in enumerate(taus):
        alone, own = constant_gradient_flow(g[:1], 0.25, tau=tau, steps=3)
        alone.step(own)
        assert_close(
            flow.flow_state.displacement[row], alone.flow_state.displacement[0], rtol=4e-16
        )  # -g by lerp or by sign


@pytest.mark.parametrize("compact", [False, True])
def test_members_without_momentum_stay_at_t_max_beside_those_with(compact):
    """Where a member stands at t_max its step is 0, and 0/tau is 0/0 for tau = 0: it must not move by NaN."""
    g = torch.ones(2, 3, dtype=torch.float64)
    flow, closure = constant_gradient_flow(g, 0.5, tau=[0.0, 1.0], events=[TimeReached(1.0)], steps=5, compact=compact)
    flow.step(closure)
    assert torch.equal(flow.flow_state.displacement[0], -g[0])


def test_selected_members_keep_their_tau_and_their_velocity():
    part = Momentum([0.0, 2.0, 3.0]).select(torch.tensor([2, 0]))
    assert part.tau.tolist() == [3.0, 0.0]
    assert Momentum([0.0, 2.0]).select(torch.tensor([0])).has_velocity


@pytest.mark.parametrize(("t", "dt"), [(0.0, 1.0), (1e-9, 1.0), (1.0, 1e-9), (5.0, 5.0)])
def test_nesterov_gain(t, dt):
    expected = 1 - (Decimal(t) / (Decimal(t) + Decimal(dt))) ** 3
    assert float(NesterovFlow(3.0).gain(seconds(t), seconds(dt))) == pytest.approx(float(expected), rel=1e-15)


def test_mu_over_t_starts_along_the_gradient():
    g = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    flow, closure = constant_gradient_flow(g, 0.125, mu=3.0, steps=4)
    flow.step(closure)
    assert torch.equal(flow.flow_state.velocity, -g)
    assert torch.equal(flow.flow_state.displacement, -0.5 * g)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1.0}, "tau"),
        ({"tau": float("nan")}, "tau"),
        ({"tau": [1.0, float("inf")]}, "tau"),
        ({"mu": 0.0}, "mu"),
        ({"mu": float("nan")}, "mu"),
        ({"tau": 1.0, "mu": 3.0}, "either tau or mu"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        step_rule(**options)


def test_a_tau_for_each_member_or_one_for_all():
    with pytest.raises(ConfigError, match="3 members"):
        MomentumFlow([nn.Parameter(torch.zeros(3, 2))], members=3, tau=[1.0, 2.0])


@pytest.mark.parametrize("mu", [1.0, 2.0, 3.0])
def test_mu_is_half_of_one_more_than_the_friction(mu):
    """In s with t = s^2/(4 mu): w'' + ((2 mu - 1)/s) w' + g = 0, of which Nesterov's limit has 3/s; by scipy."""
    rate, end = 1.7, 5.0
    ours = solve_ivp(lambda t, z: [z[1], -(mu / t) * (z[1] + rate * z[0])], [1e-9, end**2 / (4 * mu)],
                     [1.0, -rate], rtol=1e-9, atol=1e-12)  # fmt: skip
    begin = 1e-4
    other = solve_ivp(lambda s, z: [z[1], -(2 * mu - 1) / s * z[1] - rate * z[0]], [begin, end],
                      [1.0, -rate * begin / (2 * mu)], rtol=1e-9, atol=1e-12)  # fmt: skip
    assert ours.y[0, -1] == pytest.approx(other.y[0, -1], abs=1e-3)


def test_mu_of_two_is_nesterovs_limit():
    """w(s) = 2 J1(s)/s for L = w^2/2 (Su, Boyd, Candes), followed by the flow itself."""
    w = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    s = 4.0
    flow = MomentumFlow([w], members=1, mu=2.0, controller=ConstantStep(), dt=1e-3, events=[TimeReached(s**2 / 8)])
    flow.steps = 2100

    def closure():
        loss = w.square().sum(dim=1) / 2
        loss.sum().backward()
        return loss

    flow.step(closure)
    assert float(w.detach()) == pytest.approx(2 * j1(s) / s, abs=2e-3)
