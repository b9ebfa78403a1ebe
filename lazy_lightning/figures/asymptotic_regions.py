"""Which points of a sweep are lazy, and which are deep in the feature regime: where slopes are fitted, and drawn."""

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
"""Kernel drift."""
_FEATURE = {DRIFT: (100.0, 10.0, 1.0), DEPARTURE: (0.9, 0.5)}
"""Power laws hold asymptotically: of these levels the first is taken that leaves three points, else the last."""
_LEAST = 3
_GAP = 2.5
"""Between curves and the guide beside them."""


class Region(NamedTuple):
    """Points of a curve on one side of a level."""

    keep: NDArray[np.bool_]
    """(k,)"""
    level: float
    description: str
    """``kernel drift > 100``."""


def lazy_region(drift: NDArray[np.float64]) -> Region:
    """Where the kernel drift (k,) is below 0.01, or 0.1 if that leaves fewer than three points."""
    level = next((level for level in _LAZY if (drift < level).sum() >= _LEAST), _LAZY[-1])
    return Region(drift < level, level, f"kernel drift < {level:g}")


def feature_region(measure: NDArray[np.float64], column: str = DRIFT) -> Region:
    """Where an order parameter (k,) is above the highest level that leaves three points, else above the lowest.

    The levels are 100, 10, 1 of the kernel drift, and 0.9, 0.5 of the tangent departure.

    >>> feature_region(np.array([500.0, 80.0, 20.0, 0.1])).description
    'kernel drift > 10'
    """
    levels = _FEATURE[column]
    level = next((level for level in levels if (measure > level).sum() >= _LEAST), levels[-1])
    return Region(measure > level, level, f"{column.split('/')[0].replace('_', ' ')} > {level:g}")


def feature_region_of(runs: pd.DataFrame, curve: WidthCurve) -> Region | None:
    """Of a curve of these runs, by the kernel drift, or the tangent departure if that was not observed."""
    for column in (DRIFT, DEPARTURE):
        curves = width_curves(runs, column) if has(runs, column) else []
        found = next((c for c in curves if same_width(c.h, curve.h)), None)
        if found is not None:
            means = dict(zip(found.alpha.tolist(), found.log_band().mean.tolist(), strict=True))
            return feature_region(np.array([means.get(a, np.nan) for a in curve.alpha.tolist()]), column)
    return None


def fitted(curve: WidthCurve, keep: NDArray[np.bool_]) -> PowerLaw | None:
    """The power law in sqrt(h) alpha through some of the points; None where there are too few."""
    part = curve.at(keep).positive()
    try:
        return power_law(part.scale, part.values)
    except AnalysisError:
        return None


def draw_guide(axis: Axes, law: PowerLaw, x: NDArray[np.float64], shift: float) -> None:
    """A thin line beside the points of a law, ``shift`` times as high, with its slope written on the outer side."""
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
    """The shift of a guide that stands clear of all curves over some x."""
    ratios = [1.0]
    for curve in curves:
        inside = (curve.scale >= x.min()) & (curve.scale <= x.max())
        band = curve.log_band()
        outer = (np.fmax(band.high, band.mean) if above else np.fmin(band.low, band.mean))[inside]
        ratios += (outer / law.at(curve.scale[inside]))[np.isfinite(outer)].tolist()
    return _GAP * max(ratios) if above else min(ratios) / _GAP
