"""Measured numbers of the claims on ensembles: the variance over seeds, and the error of the average output."""

from __future__ import annotations

import pandas as pd

from lazy_lightning.analysis import EnsembleStatistics, ensemble_statistics, misclassified, power_law_of_points
from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.scale import common_scale_words, scale_words
from lazy_lightning.figures.sweep_table import KERNEL_AT_INIT, finished
from lazy_lightning.runs.configuration import significant


def exponent_of_variance(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the exponent against h of the variance over seeds of the frozen kernels' outputs on the test set."""
    groups = {float(str(h)): statistics_of(rows) for h, rows in finished(runs, KERNEL_AT_INIT).groupby("h")}
    law = power_law_of_points(
        list(groups), [one.variance for one in groups.values()], [one.variance_error for one in groups.values()]
    )
    return [Measurement(law.slope, law.error)]


def gain_of_the_ensemble(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the mean test error of the members minus that of their average output, in percent, for each point."""
    found = []
    for (width, scale), rows in finished(runs).groupby(["h", "alpha"]):
        h, alpha = float(str(width)), float(str(scale))
        gains = _errors(rows) - statistics_of(rows).ensemble_error
        found.append(Measurement.mean(100 * gains, f"h = {h:g}, {scale_words(h, alpha)}"))
    return found


def ensemble_minus_wider_network(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the test error of the narrow networks' average output minus the mean one of the widest, in percent."""
    networks = finished(runs)
    widths = sorted(networks["h"].unique())
    if len(widths) < 2:
        raise AnalysisError(f"the runs have the width {widths[0]:g} only, expected two widths")
    found = []
    scales = networks["sqrt_h_alpha"].map(lambda scale: significant(scale, 6))  # alpha has been rounded
    for scale, rows in networks.groupby(scales):
        narrow, wide = (rows[rows["h"] == h] for h in (widths[0], widths[-1]))
        differences = statistics_of(narrow).ensemble_error - _errors(wide)
        found.append(Measurement.mean(100 * differences, common_scale_words(float(str(scale)))))
    return found


def statistics_of(rows: pd.DataFrame) -> EnsembleStatistics:
    """Returns the statistics of the outputs of some members on the test set."""
    return ensemble_statistics(*rows.outputs.load("test")[:2])


def _errors(rows: pd.DataFrame) -> Floats:
    """Returns the test error of each member, (s,)."""
    errors: Floats = misclassified(*rows.outputs.load("test")[:2]).mean(axis=1)
    return errors
