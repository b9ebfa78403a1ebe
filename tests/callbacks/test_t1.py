"""t1, against curves whose crossing is known."""

import math

import pytest
import torch
from closeness import assert_close
from fits import LONG_AND_COARSE, fit
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.callbacks.t1 import first_crossing
from lazy_lightning.modules import Stop

NAN = float("nan")


def cross(t, values, level):
    """Of one member."""
    column = [torch.tensor(x, dtype=torch.float64).unsqueeze(1) for x in (t, values)]
    return float(first_crossing(*column, torch.tensor([level], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("t", "values", "level", "expected"),
    [
        ([1.0, 100.0], [1.0, 0.0], 0.5, 10.0),  # linear in log t
        ([0.0, 4.0], [1.0, 0.0], 0.25, 3.0),  # linear in t from t = 0
        ([0.0, 1.0, 100.0], [2.0, 1.0, 0.0], 0.5, 10.0),
        ([1.0, 2.0, 4.0], [1.0, 0.5, 0.0], 0.5, 2.0),  # on a point
        ([1.0, 2.0], [1.0, 0.9], 0.5, NAN),
        ([1.0, 2.0], [0.4, 0.1], 0.5, 1.0),  # under it from the start
        ([1.0, 2.0, 4.0, 8.0], [1.0, 0.2, 1.0, 0.0], 0.6, math.sqrt(2)),  # the first of two
        ([1.0, 1.0, 4.0], [1.0, 1.0, 0.0], 0.5, 2.0),  # a rejected step repeats the point before
        ([1.0, 2.0, 4.0], [1.0, NAN, NAN], 0.5, NAN),
        ([0.0, 0.0], [1.0, 1.0], 0.5, NAN),
    ],
)
def test_crossing(t, values, level, expected):
    assert cross(t, values, level) == pytest.approx(expected, rel=1e-15, nan_ok=True)


@given(tau=st.floats(0.1, 100.0), level=st.floats(0.05, 0.95))
def test_exponential_decay(tau, level):
    """exp(-t/tau) crosses ``level`` at -tau log(level); the error is quadratic in the steps of 1% in t."""
    t = (1e-3 * tau) * 1.01 ** torch.arange(900, dtype=torch.float64)
    found = cross(t.tolist(), torch.exp(-t / tau).tolist(), level)
    assert found == pytest.approx(-tau * math.log(level), rel=1e-4)


def test_members_apart():
    t = torch.tensor([[1.0, 1.0, 0.0], [100.0, 100.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 1.0, 4.0], [0.0, 0.9, 0.0]], dtype=torch.float64)
    found = first_crossing(t, values, torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64))
    assert_close(found, torch.tensor([10.0, NAN, 1.0], dtype=torch.float64))


def test_of_a_run_is_found_between_observations(tmp_path):
    """It lies between the observations at which the loss is over and under half its start, and then stays."""
    table = fit(tmp_path, alpha=[0.1, 10.0], seeds=2, stop=Stop(max_steps=400), schedule=LONG_AND_COARSE).table
    for _, member in table.groupby("member"):
        under = member[member["train/loss"] <= member["train/loss"].iloc[0] / 2]
        over = member[member["train/loss"] > member["train/loss"].iloc[0] / 2]
        t1 = under["t1/half_loss"]
        assert over["t1/half_loss"].isna().all()
        assert t1.nunique() == 1
        assert over["t"].iloc[-1] < t1.iloc[0] <= under["t"].iloc[0]
