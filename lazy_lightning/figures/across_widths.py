"""A quantity against the width h, at one alpha or one sqrt(h) alpha in the range of all widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import PowerLaw, power_law
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.band import Band
from lazy_lightning.figures.sweep_table import WidthCurve

By = Literal["alpha", "scale"]
"""The fixed variable: alpha, or sqrt(h) alpha."""

_NAMES = {"alpha": "alpha", "scale": "sqrt(h) alpha"}
_SAME = 1e-9
"""Relative tolerance for equal grids of sqrt(h) alpha, which have rounding errors."""
_SAME_POINT = 1e-6
"""Relative tolerance for a trained point, because alphas are often given with few digits."""


@dataclass(frozen=True)
class AcrossWidths:
    """A column against h at one alpha or sqrt(h) alpha."""

    h: NDArray[np.float64]
    """Widths (k,) in ascending order."""
    values: NDArray[np.float64]
    """Values (k, s), NaN where a seed is missing."""
    at: float
    """The alpha or sqrt(h) alpha."""
    by: By
    trained: NDArray[np.bool_]
    """Whether each width was trained at ``at``, (k,); if not, its values are interpolated."""

    @property
    def band(self) -> Band:
        """Geometric mean over seeds with its error."""
        return self._curve().log_band()

    @property
    def law(self) -> PowerLaw | None:
        """The power law in h, or None for fewer than three widths."""
        try:
            return power_law(self.h, self.values)
        except AnalysisError:
            return None

    def long(self, **columns: str) -> pd.DataFrame:
        """Returns the rows for the table of a figure."""
        alpha = self.at / np.sqrt(self.h) if self.by == "scale" else np.full(len(self.h), self.at)
        points = {"h": self.h, "alpha": alpha, "sqrt_h_alpha": np.sqrt(self.h) * alpha, "seeds": self._curve().counts}
        points["interpolated"] = ~self.trained
        return pd.DataFrame({**points, **columns, **self.band._asdict()})

    def _curve(self) -> WidthCurve:
        return WidthCurve(np.nan, self.h, self.values, ()).positive()


def common_range(curves: Sequence[WidthCurve], by: By) -> tuple[float, float]:
    """Returns the smallest and the largest alpha, or sqrt(h) alpha, in the range of all widths.

    Raises:
        AnalysisError: the ranges of the widths do not overlap.
    """
    reached = [_abscissa(curve, by)[curve.counts > 0] for curve in curves]
    low, high = max(float(x.min()) for x in reached), min(float(x.max()) for x in reached)
    if low > high * (1 + _SAME):
        raise AnalysisError(
            f"the widths have no {_NAMES[by]} in common: one starts at {low:.3g}, another ends at {high:.3g}"
        )
    return min(low, high), high


def across_widths(curves: Sequence[WidthCurve], at: float, by: By) -> AcrossWidths:
    """Interpolates the curve of each width at one alpha or sqrt(h) alpha, for each seed, linearly in both logarithms.

    Networks without a width, values that are not positive, and values outside the range of a seed are left out.

    >>> steep = WidthCurve(100.0, np.array([1.0, 100.0]), np.array([[1.0], [0.01]]), (0,))
    >>> across_widths([steep], 10.0, "alpha").values  # 1/alpha
    array([[0.1]])
    """
    known = sorted((curve for curve in curves if curve.h == curve.h), key=lambda curve: curve.h)
    seeds = sorted({seed for curve in known for seed in curve.seeds})
    values = np.full((len(known), len(seeds)), np.nan)
    for row, curve in enumerate(known):
        for seed, column in zip(curve.seeds, curve.values.T, strict=True):
            values[row, seeds.index(seed)] = interpolated(_abscissa(curve, by), column, at)
    trained = np.array([is_trained(curve, at, by) for curve in known], dtype=bool)
    return AcrossWidths(np.array([curve.h for curve in known], dtype=np.float64), values, at, by, trained)


def is_trained(curve: WidthCurve, at: float, by: By) -> bool:
    """Returns whether a curve has a point at one alpha or sqrt(h) alpha."""
    reached = _abscissa(curve, by)[curve.counts > 0]
    return bool((np.abs(reached - at) <= _SAME_POINT * at).any())


def interpolated_note(h: NDArray[np.float64], trained: NDArray[np.bool_]) -> str:
    """Describes the widths (k,) at which values are interpolated between trained points; empty if there are none.

    >>> interpolated_note(np.array([30.0, 100.0]), np.array([False, True]))
    'interpolated at h = 30'
    """
    if trained.all():
        return ""
    if not trained.any():
        return "interpolated at every h"
    return f"interpolated at h = {', '.join(f'{width:g}' for width in h[~trained])}"


def interpolated(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    """Interpolates y (k,) at one x linearly in both logarithms; NaN outside the range of positive values."""
    positive = y > 0
    if not positive.any() or not x[positive].min() * (1 - _SAME) <= at <= x[positive].max() * (1 + _SAME):
        return float("nan")
    return float(np.exp(np.interp(np.log(at), np.log(x[positive]), np.log(y[positive]))))


def _abscissa(curve: WidthCurve, by: By) -> NDArray[np.float64]:
    return curve.alpha if by == "alpha" else curve.scale
