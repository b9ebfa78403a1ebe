"""Measured numbers of the claims on ensembles: the variance over seeds, and the error of the average output."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lazy_lightning.analysis import EnsembleStatistics, ensemble_statistics, power_law_of_points
from lazy_lightning.analysis.student import widening
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.sweep_table import KERNEL_AT_INIT, finished, named_scale


def exponent_of_variance(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the exponent against h of the variance over seeds of the frozen kernels' outputs on the test set."""
    groups = {float(str(h)): _statistics(rows) for h, rows in finished(runs, KERNEL_AT_INIT).groupby("h")}
    law = power_law_of_points(
        list(groups), [one.variance for one in groups.values()], [one.variance_error for one in groups.values()]
    )
    return [Measurement(law.slope, law.error)]


def gain_of_the_ensemble(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the mean test error of the members minus that of their average output, in percent, for each point."""
    found = []
    for (width, scale), rows in finished(runs).groupby(["h", "alpha"]):
        h, alpha = float(str(width)), float(str(scale))
        one = _statistics(rows)
        gain = 100 * (one.mean_error - one.ensemble_error)
        found.append(Measurement(gain, _error_of_mean(one), f"h = {h:g}, {named_scale(h, alpha)}"))
    return found


def ensemble_minus_wider_network(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the test error of the narrow networks' average output minus the mean one of the widest, in percent."""
    networks = finished(runs)
    widths = sorted(networks["h"].unique())
    if len(widths) < 2:
        raise AnalysisError(f"the runs have the width {widths[0]:g} only, expected two widths")
    found = []
    for scale, rows in networks.assign(scale=_rounded(networks["sqrt_h_alpha"])).groupby("scale"):
        narrow, wide = (_statistics(rows[rows["h"] == h]) for h in (widths[0], widths[-1]))
        difference = 100 * (narrow.ensemble_error - wide.mean_error)
        found.append(Measurement(difference, _error_of_mean(wide), f"sqrt(h) alpha = {scale:g}"))
    return found


def _statistics(rows: pd.DataFrame) -> EnsembleStatistics:
    return ensemble_statistics(*rows.outputs.load("test")[:2])


def _error_of_mean(one: EnsembleStatistics) -> float:
    """Returns the standard error of the mean error of the members, in percent, widened by Student's t."""
    return 100 * one.mean_error_sd / math.sqrt(one.seeds) * widening(one.seeds - 1)


def _rounded(scales: pd.Series[float]) -> pd.Series[float]:
    """Rounds sqrt(h) alpha to the six digits at which different widths have the same scale."""
    return scales.map(lambda scale: float(np.format_float_scientific(scale, 5)))
