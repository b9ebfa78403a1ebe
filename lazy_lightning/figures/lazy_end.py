"""The slope of a curve where it is lazy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import PowerLaw
from lazy_lightning.figures.across_widths import across_widths
from lazy_lightning.figures.sides import DRIFT, Side, fitted, lazy_side
from lazy_lightning.figures.sweep_table import WidthCurve, has, named_width, of_width, width_curves

_LARGEST = 3


def lazy_end(runs: pd.DataFrame, curve: WidthCurve) -> Side:
    """The points of a curve where the kernel has hardly moved; its three largest alphas where that was not observed."""
    rows = of_width(runs, curve.h)
    if not has(rows, DRIFT):
        there = np.flatnonzero(curve.counts > 0)[-_LARGEST:]
        return Side(np.isin(np.arange(len(curve.alpha)), there), float("nan"), f"{len(there)} largest alphas")
    (drift,) = width_curves(rows, DRIFT)
    means = dict(zip(drift.alpha.tolist(), drift.log_band().mean.tolist(), strict=True))
    return lazy_side(np.array([means.get(alpha, np.nan) for alpha in curve.alpha.tolist()]))


def lazy_law(runs: pd.DataFrame, curve: WidthCurve) -> PowerLaw | None:
    """In sqrt(h) alpha; None where too few points are lazy."""
    return fitted(curve, lazy_end(runs, curve).keep)


def lazy_findings(runs: pd.DataFrame, curves: Sequence[WidthCurve], of: str) -> dict[str, str]:
    """The slopes there are, each with the points it is of."""
    laws = {curve.h: (lazy_law(runs, curve), lazy_end(runs, curve)) for curve in curves}
    return {
        f"{of}, lazy side, {named_width(h)}": f"{law} ({law.points} points, {side.said})"
        for h, (law, side) in laws.items()
        if law is not None
    }


def lazy_sentence(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> str:
    """The slopes in words."""
    laws = [(curve.h, lazy_law(runs, curve), lazy_end(runs, curve).said) for curve in curves]
    said = ", ".join(f"{law} ({named_width(h)}, {which})" for h, law, which in laws if law is not None)
    return f"Slope on the lazy side: {said}." if said else "Too few points on the lazy side for a slope."


def drift_at(runs: pd.DataFrame, alpha: float) -> str:
    """How lazy the networks are at an alpha: the largest kernel drift of any width, as a clause; empty if not known."""
    if not has(runs, DRIFT):
        return ""
    drifts: NDArray[np.float64] = across_widths(width_curves(runs, DRIFT), alpha, "alpha").band.mean
    known = drifts[np.isfinite(drifts)]
    return f", where kernels drift by {known.max():.2g} at most" if len(known) else ""
