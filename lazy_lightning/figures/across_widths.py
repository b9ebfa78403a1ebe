"""A quantity against the width h, at one alpha or one sqrt(h) alpha that all widths have."""

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
"""What is held fixed: alpha, or sqrt(h) alpha."""

_NAMES = {"alpha": "alpha", "scale": "sqrt(h) alpha"}
_SAME = 1e-9
"""Two grids of sqrt(h) alpha agree to the digits that were written down."""
_SAME_POINT = 1e-6
"""Relative: a point this near was trained where it is looked for; alphas are often written with few digits."""


@dataclass(frozen=True)
class AcrossWidths:
    """One column at one alpha or sqrt(h) alpha."""

    h: NDArray[np.float64]
    """(k,), ascending."""
    values: NDArray[np.float64]
    """(k, s), NaN where a seed is missing."""
    at: float
    by: By
    trained: NDArray[np.bool_]
    """(k,) whether the width was trained at ``at``; elsewhere its values are interpolated."""

    @property
    def band(self) -> Band:
        """Geometric mean over seeds, and its error."""
        return self._curve().log_band()

    @property
    def law(self) -> PowerLaw | None:
        """The power law in h; None for fewer than three widths."""
        try:
            return power_law(self.h, self.values)
        except AnalysisError:
            return None

    def long(self, **columns: str) -> pd.DataFrame:
        """Rows for the table of a figure."""
        alpha = self.at / np.sqrt(self.h) if self.by == "scale" else np.full(len(self.h), self.at)
        who = {"h": self.h, "alpha": alpha, "sqrt_h_alpha": np.sqrt(self.h) * alpha, "seeds": self._curve().counts}
        who["interpolated"] = ~self.trained
        return pd.DataFrame({**who, **columns, **self.band._asdict()})

    def _curve(self) -> WidthCurve:
        return WidthCurve(np.nan, self.h, self.values, ()).positive()


def common_range(curves: Sequence[WidthCurve], by: By) -> tuple[float, float]:
    """The smallest and the largest alpha, or sqrt(h) alpha, that all widths reach.

    Raises:
        AnalysisError: there is none.
    """
    reached = [_abscissa(curve, by)[curve.counts > 0] for curve in curves]
    low, high = max(float(x.min()) for x in reached), min(float(x.max()) for x in reached)
    if low > high * (1 + _SAME):
        raise AnalysisError(
            f"the widths have no {_NAMES[by]} in common: one starts at {low:.3g}, another ends at {high:.3g}"
        )
    return min(low, high), high


def across_widths(curves: Sequence[WidthCurve], at: float, by: By) -> AcrossWidths:
    """Each width's curve at one alpha or sqrt(h) alpha, seed by seed, linear in both logarithms between its points.

    Networks without a width are left out, and so is what is not positive, or beyond a seed's points.

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
    """Whether a curve has a point at one alpha or sqrt(h) alpha."""
    reached = _abscissa(curve, by)[curve.counts > 0]
    return bool((np.abs(reached - at) <= _SAME_POINT * at).any())


def interpolated_note(h: NDArray[np.float64], trained: NDArray[np.bool_]) -> str:
    """In words, at which widths (k,) a value is interpolated because nothing was trained there; empty if nowhere.

    >>> interpolated_note(np.array([30.0, 100.0]), np.array([False, True]))
    'interpolated at h = 30'
    """
    if trained.all():
        return ""
    if not trained.any():
        return "interpolated at every h"
    return f"interpolated at h = {', '.join(f'{width:g}' for width in h[~trained])}"


def interpolated(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    """y (k,) at one x, linear in both logarithms; NaN outside of the points that are positive."""
    there = y > 0
    if not there.any() or not x[there].min() * (1 - _SAME) <= at <= x[there].max() * (1 + _SAME):
        return float("nan")
    return float(np.exp(np.interp(np.log(at), np.log(x[there]), np.log(y[there]))))


def _abscissa(curve: WidthCurve, by: By) -> NDArray[np.float64]:
    return curve.alpha if by == "alpha" else curve.scale
