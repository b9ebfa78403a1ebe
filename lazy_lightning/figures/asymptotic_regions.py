"""The lazy and feature-learning points of a sweep, in which slopes are fitted and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lazy_lightning.analysis import PowerLaw, power_law
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.marks import slope_label
from lazy_lightning.figures.sweep_table import WidthCurve, has, same_width, width_curves

DRIFT, DEPARTURE = "kernel_drift/total", "tangent_departure"

_LAZY = (0.01, 0.1)
"""Levels of the kernel drift."""
_FEATURE = {DRIFT: (100.0, 10.0, 1.0), DEPARTURE: (0.9, 0.5)}
"""Levels for asymptotic power laws, of which the first with three points above it is used, else the last."""
_LEAST = 3
_GAP = 2.5
"""Factor between the curves and the line of a slope."""


class Region(NamedTuple):
    """Points of a curve on one side of a level."""

    keep: NDArray[np.bool_]
    """Whether each point is in the region, (k,)."""
    level: float
    """The level of the order parameter."""
    description: str
    """The condition in words, such as ``kernel drift > 100``."""


def lazy_region(drift: NDArray[np.float64]) -> Region:
    """Returns the points with a kernel drift (k,) below 0.01, or 0.1 if that leaves fewer than three points."""
    level = next((level for level in _LAZY if (drift < level).sum() >= _LEAST), _LAZY[-1])
    return Region(drift < level, level, f"kernel drift < {level:g}")


def feature_region(measure: NDArray[np.float64], column: str = DRIFT) -> Region:
    """Returns the points with an order parameter (k,) above the highest level that leaves three, else the lowest.

    The levels are 100, 10, 1 of the kernel drift, and 0.9, 0.5 of the tangent departure.

    >>> feature_region(np.array([500.0, 80.0, 20.0, 0.1])).description
    'kernel drift > 10'
    """
    levels = _FEATURE[column]
    level = next((level for level in levels if (measure > level).sum() >= _LEAST), levels[-1])
    return Region(measure > level, level, f"{column.split('/')[0].replace('_', ' ')} > {level:g}")


def feature_region_of(runs: pd.DataFrame, curve: WidthCurve) -> Region | None:
    """Returns the feature region of a curve by the kernel drift, or by the tangent departure if that is missing."""
    for column in (DRIFT, DEPARTURE):
        curves = width_curves(runs, column) if has(runs, column) else []
        found = next((c for c in curves if same_width(c.h, curve.h)), None)
        if found is not None:
            means = dict(zip(found.alpha.tolist(), found.log_band().mean.tolist(), strict=True))
            return feature_region(np.array([means.get(a, np.nan) for a in curve.alpha.tolist()]), column)
    return None


def fitted(curve: WidthCurve, keep: NDArray[np.bool_]) -> PowerLaw | None:
    """Fits a power law in sqrt(h) alpha to some of the points; returns None if there are too few."""
    part = curve.at(keep).positive()
    try:
        return power_law(part.scale, part.values)
    except AnalysisError:
        return None


def draw_guide(axis: Axes, law: PowerLaw, x: NDArray[np.float64], shift: float) -> None:
    """Draws a thin line parallel to a law, ``shift`` times as high, with a label of its slope on the outer side."""
    ends, above = np.array([x.min(), x.max()]), shift > 1
    axis.plot(ends, shift * law.at(ends), "-", color="0.35", lw=0.8)
    middle = float(np.sqrt(ends.prod()))
    axis.annotate(
        slope_label(law.slope, law.error),
        (middle, float(shift * law.at(middle))),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        ha="left" if above == (law.slope < 0) else "right",
        va="bottom" if above else "top",
        fontsize=8,
        color="0.2",
    )


def clear_shift(law: PowerLaw, x: NDArray[np.float64], curves: Sequence[WidthCurve], above: bool) -> float:
    """Returns the shift of a line of a slope that does not overlap any curve in the range of x."""
    ratios = [1.0]
    for curve in curves:
        inside = (curve.scale >= x.min()) & (curve.scale <= x.max())
        band = curve.log_band()
        outer = (np.fmax(band.high, band.mean) if above else np.fmin(band.low, band.mean))[inside]
        ratios += (outer / law.at(curve.scale[inside]))[np.isfinite(outer)].tolist()
    return _GAP * max(ratios) if above else min(ratios) / _GAP
