"""A lazy network fits its training set long before its test loss falls, a rich one does not (arXiv:2310.06110)."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pytest
from fits import fit

from lazy_lightning.data import HermiteRegression
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import QuadraticCommittee


def delay(curve: pd.DataFrame, level: float = 0.1) -> float:
    """How many times later the test loss falls under a share of its start than the train loss does."""

    def first(column: str) -> float:
        return float(curve.t[curve[column] < level * curve[column].iloc[0]].iloc[0])

    return first("test/loss") / first("train/loss")


@pytest.mark.slow
def test_delay_of_the_test_loss_is_long_for_lazy_networks_alone(tmp_path: Path) -> None:
    module = FlowModule(
        functools.partial(QuadraticCommittee, 50, 0.25), loss="mse", alpha=[0.02, 2.0], integrator="auto",
        stop=StoppingCriteria(loss=1e-4, t_max=1e6),
    )  # fmt: skip
    table = fit(tmp_path, module, HermiteRegression(d=20, n_train=100, n_test=500)).table
    delays = {alpha: delay(curve) for alpha, curve in table.groupby("alpha")}
    assert delays[0.02] < 3
    assert delays[2.0] > 6
