import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.parametrisation import from_mean_field, time_factor, to_mean_field

WIDTH = 9
CONVENTIONS = ["mean_field", "reference_code"]


def flow(head, alpha, prefactor, dt, tau=0.0, steps=300):
    """F after explicit steps of v' = -(v + grad L)/tau, w' = v, with L = prefactor * mean ell(F, y)."""
    torch.manual_seed(5)
    net = FC(width=WIDTH, depth=2, head=head, bias=0.3, input_shape=4).double()
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64).sign()
    w = list(net.parameters())
    v = [torch.zeros_like(p) for p in w]
    start = net(x).detach()
    for _ in range(steps):
        loss = prefactor * torch.nn.functional.softplus(1 - alpha * (net(x) - start) * y, beta=20).mean()
        decay = math.exp(-dt / tau) if tau else 0.0
        with torch.no_grad():
            for p, u, g in zip(w, v, torch.autograd.grad(loss, w), strict=True):
                u.mul_(decay).sub_((1 - decay) * g)
                p.add_(dt * u)
    return alpha * (net(x) - start).detach()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("alpha", [0.05, 0.5, 30.0])
@pytest.mark.parametrize("tau", [0.0, 0.05])
def test_the_flows_are_the_same(convention, alpha, tau):
    dt = 2e-3 * min(1.0, 10 * alpha)
    other_alpha, other_dt = to_mean_field(alpha, dt, WIDTH, convention)
    other_tau = to_mean_field(alpha, tau, WIDTH, convention).t
    prefactor = 1 / other_alpha**2 if convention == "mean_field" else 1 / other_alpha
    own = flow("ntk", alpha, 1 / alpha**2, dt, tau)
    other = flow("mean_field", other_alpha, prefactor, other_dt, other_tau)
    assert own.abs().max() > 0.05  # it has moved
    torch.testing.assert_close(other, own, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(alpha=st.floats(1e-7, 1e7), t=st.floats(1e-9, 1e9), width=st.integers(1, 10**5))
def test_round_trip(convention, alpha, t, width):
    there = to_mean_field(alpha, t, width, convention)
    assert from_mean_field(*there, width, convention) == pytest.approx((alpha, t), rel=1e-14)


@given(alpha=st.floats(1e-7, 1e7), t=st.floats(1e-9, 1e9), width=st.integers(1, 10**5))
def test_reference_statement(alpha, t, width):
    """alpha_code = sqrt(h) alpha and t_code / h = t / (sqrt(h) alpha)."""
    code = to_mean_field(alpha, t, width, "reference_code")
    assert code.alpha == pytest.approx(math.sqrt(width) * alpha)
    assert code.t / width == pytest.approx(t / (math.sqrt(width) * alpha))


@pytest.mark.parametrize(
    ("args", "words"),
    [((0.0, 4), "alpha"), ((math.nan, 4), "alpha"), ((1.0, 0), "width"), ((1.0, 4, "ntk"), "convention")],
)
def test_bad_values(args, words):
    with pytest.raises(ConfigError, match=f"{words} is"):
        time_factor(*args)
    with pytest.raises(ConfigError, match=f"{words} is"):
        from_mean_field(args[0], 1.0, *args[1:])
