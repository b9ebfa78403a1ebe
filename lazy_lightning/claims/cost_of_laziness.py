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


def difference(column: str, lazy: float, feature: float, *, factor: float = 100.0) -> Measure:
    """Measures a column at one alpha minus at a smaller one, paired over seeds, times ``factor``."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (curve,) = width_curves(runs, column)
        return [Measurement.mean(factor * (_at(curve, lazy) - _at(curve, feature)))]

    return measure


def distance_from_linearisation(column: str, alpha: float) -> Measure:
    """Measures a column of the network minus that of its linearised companion at one alpha, in percent."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (network,), (companion,) = (width_curves(runs, name) for name in (column, f"linearized/{column}"))
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
