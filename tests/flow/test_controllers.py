"""Step-size controllers as pure functions: no network here."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Change, ConstantStep, GradientChangeController, gradient_change, reference
from lazy_lightning.flow.controllers import controller

NAN, INF = float("nan"), float("inf")


def judge(policy, r, out=None, dt=0.3):
    """(accept, dt) of one member."""
    change = Change(torch.tensor([r], dtype=torch.float64), None if out is None else torch.tensor([out]).double())
    accept, after = policy(torch.tensor([dt], dtype=torch.float64), change)
    assert after.dtype == torch.float64
    return bool(accept), float(after)


GROWN, KEPT, SHRUNK = (True, 0.3 * 1.1), (True, 0.3), (False, 0.3 / 10)


@pytest.mark.parametrize(
    ("policy", "r", "out", "expected"),
    [
        (gradient_change(), 0.0, None, GROWN),
        (gradient_change(), 0.99e-4, None, GROWN),
        (gradient_change(), 1e-4, None, KEPT),
        (gradient_change(), 0.99e-2, None, KEPT),
        (gradient_change(), 1e-2, None, SHRUNK),
        (gradient_change(), INF, None, SHRUNK),
        (gradient_change(), NAN, None, SHRUNK),
        (reference(), 0.49e-4, 0.049, GROWN),
        (reference(), 0.51e-4, 0.049, KEPT),
        (reference(), 0.49e-4, 0.051, KEPT),
        (reference(), 0.99e-4, 0.099, KEPT),
        (reference(), 1e-4, 0.0, SHRUNK),
        (reference(), 0.0, 0.1, SHRUNK),
        (reference(), 0.0, NAN, SHRUNK),
        (reference(), NAN, 0.0, SHRUNK),
        (ConstantStep(), 1e300, None, KEPT),
        (ConstantStep(), NAN, None, SHRUNK),
        (ConstantStep(), INF, None, SHRUNK),
        (GradientChangeController(1e300, 1e-300), 1e299, None, KEPT),  # wide open: a constant step
        (GradientChangeController(1.0, 0.5, growth=1.0, shrink=2.0), 0.1, None, KEPT),
        (GradientChangeController(1.0, 0.5, growth=1.0, shrink=2.0), 2.0, None, (False, 0.15)),
    ],
)
def test_regions(policy, r, out, expected):
    assert judge(policy, r, out) == expected


def test_members_are_judged_apart():
    accept, dt = gradient_change()(
        torch.ones(3, dtype=torch.float64), Change(torch.tensor([0.0, 1e-3, NAN]).double(), None)
    )
    assert accept.tolist() == [True, True, False]
    assert dt.tolist() == [1.1, 1.0, 0.1]


@given(r=st.floats(0, 1e290), dt=st.floats(1e-300, 1e300))
def test_wide_band_is_the_constant_step(r, dt):
    assert (
        judge(GradientChangeController(1e300, 1e300, growth=1.0), r, dt=dt)
        == judge(ConstantStep(), r, dt=dt)
        == (True, dt)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_max": 1e-4, "r_grow": 1e-2}, "r_grow"),
        ({"r_max": 1.0, "r_grow": 0.0}, "r_grow"),
        ({"r_max": NAN, "r_grow": NAN}, "r_grow"),
        ({"r_max": 1.0, "r_grow": 1.0, "out_max": 0.1}, "both out_max and out_grow"),
        ({"r_max": 1.0, "r_grow": 1.0, "out_max": 0.1, "out_grow": 0.2}, "out_grow"),
        ({"r_max": 1.0, "r_grow": 1.0, "growth": 0.9}, "growth"),
        ({"r_max": 1.0, "r_grow": 1.0, "growth": NAN}, "growth"),
        ({"r_max": 1.0, "r_grow": 1.0, "shrink": 1.0}, "shrink"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GradientChangeController(**options)


def test_by_name():
    assert controller("reference") == reference()
    with pytest.raises(ConfigError, match=r"'slide'.*gradient_change, reference"):
        controller("slide")
