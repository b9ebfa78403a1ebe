"""Claims of arXiv:1906.08034 on the tangent kernel: digits parity, FC of three layers, h = 30, 100, 300.

One sweep on a common grid of sqrt(h) alpha, so that widths can be compared point by point. The slopes are printed with
their errors: standard errors of the fit, and the spread over seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fits import members_at_the_end
from pytorch_lightning import Callback
from scipy.stats import linregress

from lazy_lightning.callbacks import T1, KernelDrift, PathDistance, TLazy
from lazy_lightning.data import Digits
from lazy_lightning.modules import FlowModule, KernelModule
from lazy_lightning.nn import FC

pytestmark = pytest.mark.slow

WIDTHS = (30, 100, 300)
SCALES = tuple(float(f"{s:.4g}") for s in np.logspace(-2.5, 3.5, 13))
"""sqrt(h) alpha"""
SEEDS = 3
LAZY, FEATURE = 90.0, 0.05


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The last values of every member, with h and sqrt(h) alpha."""
    return pd.concat([_run(width, tmp_path_factory.mktemp(f"h{width}")) for width in WIDTHS], ignore_index=True)


def _run(width: int, folder: Path) -> pd.DataFrame:
    alphas = [scale / width**0.5 for scale in SCALES]
    module = FlowModule(functools.partial(FC, width), alpha=alphas, seeds=SEEDS, dt=1e-3)
    observers = [KernelDrift(t_factor=1.5), T1(["half_loss", "kernel_drift"]), TLazy(), PathDistance()]
    table = _fit(module, folder, observers)
    return table.assign(h=width, scale=np.repeat(SCALES, SEEDS))


def _fit(module: FlowModule, folder: Path, observers: Sequence[Callback]) -> pd.DataFrame:
    return members_at_the_end(module, Digits(n_train=200, n_test=797), folder, observers)


def fitted_slope(name: str, x: pd.Series[float], y: pd.Series[float]) -> float:
    """Of log y against log x, printed with its standard error."""
    fit = linregress(np.log(x), np.log(y))
    print(f"{name}: {fit.slope:+.3f} +- {fit.stderr:.3f}")
    return float(fit.slope)


def means(sweep: pd.DataFrame, column: str) -> pd.DataFrame:
    """Geometric mean over seeds: rows sqrt(h) alpha, columns h."""
    logs = np.log(sweep.set_index(["scale", "h", "seed"])[column])
    return np.exp(logs.groupby(level=["scale", "h"]).mean()).unstack()


def alpha_star(drift: pd.Series[float], level: float) -> float:
    """The sqrt(h) alpha at which the drift falls to a level, interpolated in both logarithms."""
    return float(np.exp(np.interp(-np.log(level), -np.log(drift), np.log(drift.index))))


def test_lazy_drift_falls_as_one_over_sqrt_h_alpha(sweep: pd.DataFrame) -> None:
    table = means(sweep, "kernel_drift/total")
    for width in WIDTHS:
        lazy = table[width][table.index > LAZY]
        slope = fitted_slope(f"drift, lazy side, h = {width}", lazy.index.to_series(), lazy)
        assert slope == pytest.approx(-1, abs=0.1)


def test_feature_drift_falls_more_steeply_but_less_than_quadratically(sweep: pd.DataFrame) -> None:
    table = means(sweep, "kernel_drift/total")
    for width in WIDTHS:
        feature = table[width][table.index < FEATURE]
        slope = fitted_slope(f"drift, feature side, h = {width}", feature.index.to_series(), feature)
        assert -2 < slope < -1.1


def test_widths_collapse_and_alpha_star_falls_as_one_over_sqrt_h(sweep: pd.DataFrame) -> None:
    table = means(sweep, "kernel_drift/total")
    print(table.to_string(float_format=lambda v: f"{v:.3g}"))
    stars = {h: alpha_star(table[h], 0.5) / h**0.5 for h in WIDTHS}
    print("alpha* at drift 0.5:", {h: f"{a:.4g}" for h, a in stars.items()})
    exponent = fitted_slope("alpha* against h", pd.Series(WIDTHS, dtype=float), pd.Series(list(stars.values())))
    assert exponent == pytest.approx(-0.5, abs=0.1)


def test_t1_of_the_kernel_grows_as_sqrt_h_alpha(sweep: pd.DataFrame) -> None:
    for definition in ("half_loss", "kernel_drift"):
        table = means(sweep, f"t1/{definition}")
        for width in WIDTHS:
            feature = table[width][table.index < FEATURE]
            slope = fitted_slope(f"t1 by {definition}, h = {width}", feature.index.to_series(), feature)
            assert slope == pytest.approx(1, abs=0.1)


def test_time_scales_of_lazy_training_do_not_depend_on_alpha(sweep: pd.DataFrame) -> None:
    for column in ("t_lazy/norm", "t_lazy/labels"):
        table = means(sweep, column)
        print(column, table.mean().to_dict())
        assert (table.max() / table.min() - 1 < 1e-3).all()


def test_lazy_path_approaches_that_of_the_linearisation(sweep: pd.DataFrame) -> None:
    table = means(sweep, "path_distance/sup")
    for width in WIDTHS:
        lazy = table[width][table.index > LAZY]
        slope = fitted_slope(f"path distance, h = {width}", lazy.index.to_series(), lazy)
        assert slope == pytest.approx(-1, abs=0.15)


def test_frozen_kernel_and_lazy_network_have_one_test_error(sweep: pd.DataFrame, tmp_path: Path) -> None:
    """Member by member, far inside the scatter over seeds."""
    kernel = _fit(KernelModule(functools.partial(FC, 100), alpha=1.0, seeds=SEEDS, dt=1e-3), tmp_path, [])
    lazy = sweep[(sweep["h"] == 100) & (sweep["scale"] == SCALES[-1])]
    print("test errors, kernel and lazy network:", kernel["test/error"].tolist(), lazy["test/error"].tolist())
    assert np.abs(kernel["test/error"].to_numpy() - lazy["test/error"].to_numpy()).max() <= 2 / 797
