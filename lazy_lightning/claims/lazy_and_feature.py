"""Measured numbers of the claims on one sweep of widths and scales: exponents against sqrt(h) alpha, and collapses.

A scale is sqrt(h) alpha. The lazy side is where it exceeds 90, the feature side where it is below 0.05; there the
curves of three layers and softplus are straight in both logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lazy_lightning.analysis import (
    Curve,
    collapse_exponent,
    crossing,
    power_law,
    power_law_of_points,
)
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.sweep_table import KERNEL_AT_INIT, WidthCurve, named_width, width_curves

LAZY, FEATURE = 90.0, 0.05
"""The ends of the two sides, in sqrt(h) alpha."""

Measure = Callable[[pd.DataFrame], Sequence[Measurement]]


def lazy_side(curve: WidthCurve) -> WidthCurve:
    """Returns the points of the lazy side."""
    return curve.at(curve.scale > LAZY)


def feature_side(curve: WidthCurve) -> WidthCurve:
    """Returns the points of the feature side."""
    return curve.at(curve.scale < FEATURE)


def slope(column: str, side: Callable[[WidthCurve], WidthCurve]) -> Measure:
    """Measures the exponent of a column against sqrt(h) alpha on one side, for each width with scales there."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        found = []
        for curve in width_curves(runs, column):
            part = side(curve)
            if len(part.scale):
                law = power_law(part.scale, part.values)
                found.append(Measurement(law.slope, law.error, named_width(curve.h)))
        if not found:
            raise AnalysisError(f"no width has scales on the side of {column} that is fitted")
        return found

    return measure


def slopes_by_layer(prefix: str, side: Callable[[WidthCurve], WidthCurve]) -> Measure:
    """Measures the exponents of the columns of all hidden layers at the largest width."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        layers = sorted(column for column in runs.columns if column.startswith(f"{prefix}/hidden."))
        if not layers:
            raise AnalysisError(f"no column {prefix}/hidden.* was observed")
        return [slope(column, side)(runs)[-1]._replace(label=column.rpartition("/")[2]) for column in layers]

    return measure


def exponent_of_alpha_star(level: float = 0.5) -> Measure:
    """Measures the exponent against h of the alpha at which the kernel drift falls through a level."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        curves = _across_the_regimes(runs, "kernel_drift/total")
        found = [crossing(curve.alpha, curve.values, level) for curve in curves]
        law = power_law_of_points([c.h for c in curves], [f.value for f in found], [f.error for f in found])
        return [Measurement(law.slope, law.error)]

    return measure


def _across_the_regimes(runs: pd.DataFrame, column: str) -> list[WidthCurve]:
    """Returns the curves of the widths with scales on both sides."""
    curves = width_curves(runs, column)
    return [curve for curve in curves if len(feature_side(curve).scale) and len(lazy_side(curve).scale)]


def collapse(column: str) -> Measure:
    """Measures the exponent a for which the curves of all widths collapse against h^a alpha."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        curves = [Curve(curve.h, curve.alpha, curve.values) for curve in _across_the_regimes(runs, column)]
        exponent = collapse_exponent(curves)
        return [Measurement(exponent.value, exponent.error)]

    return measure


def variation_with_width(column: str) -> Measure:
    """Measures the exponent against h of a column's mean over the lazy side."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        curves = width_curves(runs, column)
        logs = [np.log(lazy_side(curve).values).mean(axis=0) for curve in curves]  # of each seed
        means = [Measurement.mean(values) for values in logs]
        levels = np.exp([one.value for one in means])
        law = power_law_of_points([curve.h for curve in curves], levels, levels * [one.error for one in means])
        return [Measurement(law.slope, law.error)]

    return measure


def weight_changes_against_width(column: str, label: str) -> Measure:
    """Measures the exponent against h, at fixed alpha, of alpha times the mean |dW_ij| of a layer on the lazy side."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        scaled = runs.assign(**{column: runs["alpha"] * runs[column]}) if column in runs else runs
        return [one._replace(label=label) for one in variation_with_width(column)(scaled)]

    return measure


def together(*measures: Measure) -> Measure:
    """Combines the numbers of several measures."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        return [one for each in measures for one in each(runs)]

    return measure


def change_of_error_over_the_plateau(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the change of the test error from the first to the last lazy scale, in standard deviations over seeds.

    It is paired over seeds. The scales span two decades at least.
    """
    found = []
    for curve in width_curves(runs, "test/error"):
        lazy = lazy_side(curve)
        if not len(lazy.scale) or lazy.scale[-1] / lazy.scale[0] < 99:
            raise AnalysisError(f"the lazy scales of {named_width(curve.h)} span less than two decades")
        spread = lazy.values.std(axis=1, ddof=1).mean()
        found.append(Measurement.mean((lazy.values[-1] - lazy.values[0]) / spread, named_width(curve.h)))
    return found


def kernel_minus_lazy_network(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the test error of the frozen kernel minus that of the network at the largest scale, in percent.

    It is paired over seeds, which have the same initial weights.
    """
    kernels = {curve.h: curve for curve in width_curves(runs, "test/error", KERNEL_AT_INIT)}
    found = []
    for curve in width_curves(runs, "test/error"):
        if curve.h not in kernels:
            raise AnalysisError(f"no frozen kernel at initialisation of {named_width(curve.h)} has finished")
        kernel = kernels[curve.h]
        common = sorted({*curve.seeds} & {*kernel.seeds})
        ours, theirs = (one.values[-1][[one.seeds.index(seed) for seed in common]] for one in (curve, kernel))
        found.append(Measurement.mean(100 * (theirs - ours), named_width(curve.h)))
    return found
