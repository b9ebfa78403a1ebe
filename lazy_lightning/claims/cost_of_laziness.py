"""Measured numbers of the claims that compare lazy and feature-learning networks, paired over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.ensembles import statistics_of
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.draws import training_sets
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


def difference_by_size(runs: pd.DataFrame) -> list[Measurement]:
    """Measures for each n and h the test error at the largest scale minus that at the smallest, in percent.

    It is that of single networks, paired over training sets and test images, and its error is over both.
    """
    found = []
    for label, rows, (feature, lazy) in _by_size(runs):
        pair = paired_difference(rows, lazy, feature)
        if pair is None:
            raise AnalysisError(f"the outputs of the networks with {label} have not been kept")
        found.append(Measurement(100 * pair.result.mean, 100 * pair.result.error, label))
    return found


def ensemble_difference_by_size(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the same of the average outputs over seeds of the weights, paired over training sets."""
    found = []
    for label, rows, scales in _by_size(runs):
        sets = pd.Series(training_sets(rows), index=rows.index)
        feature, lazy = (
            np.array([_ensemble_error(rows[(sets == one) & (rows["alpha"] == alpha)]) for one in sorted(set(sets))])
            for alpha in scales
        )
        found.append(Measurement.mean(100 * (lazy - feature), label))
    return found


def _by_size(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, tuple[float, float]]]:
    """Yields the finished networks of each n and h with a label, and their smallest and largest alpha."""
    for (samples, width), rows in finished(runs).groupby(["data.n_train", "h"]):
        label = f"n = {float(str(samples)):g}, h = {float(str(width)):g}"
        yield label, rows, (float(rows["alpha"].min()), float(rows["alpha"].max()))


def _ensemble_error(members: pd.DataFrame) -> float:
    """Returns the test error of the average output of some members.

    Raises:
        AnalysisError: there is no member.
    """
    if members.empty:
        raise AnalysisError("a training set lacks one of the two scales: resume the sweep")
    return float(statistics_of(members).ensemble_error)


def distance_from_linearisation(alpha: float) -> Measure:
    """Measures the test error of the network minus that of its linearised companion at one alpha, in percent."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (network,), (companion,) = (width_curves(runs, f"{model}test/error") for model in ("", "linearized/"))
        return [Measurement.mean(100 * (at_alpha(network, alpha) - at_alpha(companion, alpha)))]

    return measure


def value(column: str, alpha: float) -> Measure:
    """Measures the mean over seeds of a column at one alpha."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        (curve,) = width_curves(runs, column)
        return [Measurement.mean(at_alpha(curve, alpha))]

    return measure


def ratio_of_losses(narrow: Student, wide: Student) -> Measure:
    """Measures log10 of the wide student's population loss over the narrow one's, paired over seeds."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        return [Measurement.mean(np.log10(wide.losses(runs)) - np.log10(narrow.losses(runs)))]

    return measure


def at_alpha(curve: WidthCurve, alpha: float) -> Floats:
    """Returns the values (s,) at one alpha.

    Raises:
        AnalysisError: there is no such alpha.
    """
    where = np.flatnonzero(np.isclose(curve.alpha, alpha, rtol=1e-6))
    if not len(where):
        raise AnalysisError(f"no member has alpha = {alpha:g}")
    values: Floats = curve.values[where[0]]
    return values
