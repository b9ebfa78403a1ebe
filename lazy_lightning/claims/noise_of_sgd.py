"""Measured numbers of the claims on the temperature T = lr/batch of SGD, at constant alpha."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.noise_plane import MARGINS_MET, temperatures
from lazy_lightning.figures.sweep_table import NETWORK, WidthCurve, finished, width_curves


def growth_with_temperature(column: str, smallest_alpha: float = 0.0) -> Measure:
    """Measures log10 of a column at the highest temperature over that at the lowest, for each alpha.

    They are the highest and the lowest at which all seeds have met their margins, because those that have not are still
    in training, and a mean over the others would be biased. The ratio is paired over seeds of weights and batches.

    Args:
        column: the column.
        smallest_alpha: the alpha from which on it is measured.
    """

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        seeds = runs.loc[runs["model"] == NETWORK, "seed"].nunique()
        found = []
        for alpha, rows in finished(runs).groupby("alpha"):
            if float(str(alpha)) >= smallest_alpha:
                curve = _against_temperature(rows, column, seeds)
                if curve is not None and len(curve.alpha) > 1:
                    found.append(_growth(curve, float(str(alpha))))
        if not found:
            raise AnalysisError("at no alpha have all seeds met their margins at two temperatures")
        return found

    return measure


def _growth(curve: WidthCurve, alpha: float) -> Measurement:
    low, high = curve.alpha[[0, -1]]
    return Measurement.mean(np.log10(curve.values[-1] / curve.values[0]), f"alpha = {alpha:g}, T = {low:g} to {high:g}")


def _against_temperature(rows: pd.DataFrame, column: str, seeds: int) -> WidthCurve | None:
    """Returns a column of one alpha against the temperature where all seeds have met their margins; None if nowhere."""
    met = rows.assign(alpha=temperatures(rows))[rows["reason"] == MARGINS_MET]  # drawn against alpha elsewhere
    try:
        curves = width_curves(met, column)
    except AnalysisError:  # no member has met its margins
        return None
    if len(curves) > 1:
        raise AnalysisError(f"the runs have {len(curves)} widths, expected one")
    return curves[0].at(curves[0].counts == seeds)
