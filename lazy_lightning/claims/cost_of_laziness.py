"""Measured numbers of the claims that compare lazy and feature-learning networks, paired over seeds."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.sweep_table import WidthCurve, finished, width_curves
from lazy_lightning.figures.tested_samples import paired_difference


class Student(NamedTuple):
    """Students of one width at one scale."""

    width: int
    """Number m of neurons."""
    axis: Literal["alpha", "sqrt_h_alpha"]
    """``alpha`` for the output scaling 1/sqrt(m), ``sqrt_h_alpha`` for 1/m: f/sqrt(m) with alpha = scale/sqrt(m)."""
    scale: float
    """The value on this axis."""

    def losses(self, runs: pd.DataFrame) -> Floats:
        """Returns the population losses (s,) in order of seeds.

        Raises:
            AnalysisError: there is no such student.
        """
        rows = finished(runs)
        rows = rows[(rows["h"] == self.width) & np.isclose(rows[self.axis], self.scale, rtol=1e-6)]
        if rows.empty:
            raise AnalysisError(f"no student has h = {self.width} and {self.axis} = {self.scale:g}")
        losses: Floats = rows.sort_values("seed")["population/loss"].to_numpy(dtype=np.float64)
        return losses


def difference(lazy: float, feature: float) -> Measure:
    """Measures the test error at one alpha minus that at a smaller one, in percent, paired over seeds and test images.

    Its error is that over other seeds and other test images.
    """

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        found = paired_difference(finished(runs), lazy, feature)
        if found is None:
            raise AnalysisError(f"no seed has been trained at alpha = {lazy:g} and {feature:g} with its outputs kept")
        return [Measurement(100 * found.result.mean, 100 * found.result.error)]

    return measure


def distance_from_linearisation(alpha: float) -> Measure:
    """Measures the test error of the network minus that of its linearised companion at one alpha, in percent."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (network,), (companion,) = (width_curves(runs, f"{model}test/error") for model in ("", "linearized/"))
        return [Measurement.mean(100 * (_at(network, alpha) - _at(companion, alpha)))]

    return measure


def value(column: str, alpha: float) -> Measure:
    """Measures the mean over seeds of a column at one alpha."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (curve,) = width_curves(runs, column)
        return [Measurement.mean(_at(curve, alpha))]

    return measure


def ratio_of_losses(narrow: Student, wide: Student) -> Measure:
    """Measures log10 of the wide student's population loss over the narrow one's, paired over seeds."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        return [Measurement.mean(np.log10(wide.losses(runs)) - np.log10(narrow.losses(runs)))]

    return measure


def _at(curve: WidthCurve, alpha: float) -> Floats:
    """Returns the values (s,) at one alpha.

    Raises:
        AnalysisError: there is no such alpha.
    """
    where = np.flatnonzero(np.isclose(curve.alpha, alpha, rtol=1e-6))
    if not len(where):
        raise AnalysisError(f"no member has alpha = {alpha:g}")
    values: Floats = curve.values[where[0]]
    return values
