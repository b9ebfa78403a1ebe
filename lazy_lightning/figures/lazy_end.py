"""The lazy points of a curve according to the observed quantities, and the slope of the curve at these points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import PowerLaw
from lazy_lightning.analysis.regime import ENDED_BY_ITSELF, LAZY_BELOW, TRAINED_BELOW
from lazy_lightning.errors import ConfigError
from lazy_lightning.figures.across_widths import across_widths
from lazy_lightning.figures.asymptotic_regions import DEPARTURE, DRIFT, Region, fitted, lazy_region
from lazy_lightning.figures.sweep_table import NETWORK, WidthCurve, has, named_width, of_width, width_curves

_LARGEST = 3
_NAMES = {DRIFT: "kernel drift", DEPARTURE: "tangent departure"}


def shown_lazy(runs: pd.DataFrame, curve: WidthCurve) -> Region | None:
    """Returns the points at the large end of a curve that are lazy by all observed measures; None if there are none.

    Kernel drift and tangent departure, averaged over seeds, must be below 0.1 at a point and at all larger alphas.
    Points at which neither was measured are left out, and so are points whose training is incomplete (see
    :func:`undecided`), because every network is close to its linearisation at the start of training.
    """
    rows = of_width(runs, curve.h)
    measures = {name: _means(rows, column, curve) for column, name in _NAMES.items() if has(rows, column)}
    if not measures:
        return None
    values = np.stack(list(measures.values()))
    known = np.isfinite(values)
    left_tangent_space = ((values >= LAZY_BELOW) & known).any(axis=0)
    beyond = np.flatnonzero(left_tangent_space).max(initial=-1)
    lazy = known.any(axis=0) & (np.arange(len(curve.alpha)) > beyond)
    too_early = undecided(rows, curve) & lazy
    description = " and ".join(f"{name} < {LAZY_BELOW:g}" for name in measures)
    if too_early.any():
        share = f"{100 * TRAINED_BELOW:g} %"
        description += (
            f"; left out, because the training loss has not fallen to {share}: {too_early.sum()} larger alphas"
        )
    return Region(lazy & ~too_early, LAZY_BELOW, description)


def undecided(rows: pd.DataFrame, curve: WidthCurve) -> NDArray[np.bool_]:
    """Returns whether the training of each point is too incomplete for the lazy regime, (k,).

    As in a run's summary, this is the case if the training of a member is not complete and the training loss has not
    fallen to half of its initial value, averaged over members with curves.
    """
    members = rows[(rows["status"] == "finished") & (rows["model"] == NETWORK)]
    early = members[~members["reason"].isin(ENDED_BY_ITSELF)] if "reason" in members else members[:0]
    alphas = set(early["alpha"].tolist())
    shares = _loss_shares(members[members["alpha"].isin(alphas)])
    return np.array([a in alphas and not shares.get(a, np.inf) <= TRAINED_BELOW for a in curve.alpha.tolist()])


def _loss_shares(members: pd.DataFrame) -> dict[float, float]:
    """Returns the ratio of the last and first training loss by alpha, averaged over seeds with curves."""
    if members.empty:
        return {}
    try:
        curves = members.curves.load(["train/loss"])
    except (AttributeError, ConfigError):  # a table that was not loaded from runs has no curves
        return {}
    curves = curves.sort_values(["id", "observation"], kind="stable").dropna(subset=["train/loss"])
    ends = curves.groupby(["alpha", "id"])["train/loss"].agg(["first", "last"])
    shares: pd.Series[float] = (ends["last"] / ends["first"]).groupby("alpha").mean()
    return {float(str(alpha)): float(share) for alpha, share in shares.items()}


def lazy_end(runs: pd.DataFrame, curve: WidthCurve) -> Region:
    """Returns the points of a curve with a small kernel drift.

    The tangent departure is used if the drift was not observed, and the three largest alphas if neither was.
    """
    rows = of_width(runs, curve.h)
    if has(rows, DRIFT):
        (drift,) = width_curves(rows, DRIFT)
        means = dict(zip(drift.alpha.tolist(), drift.log_band().mean.tolist(), strict=True))
        return lazy_region(np.array([means.get(alpha, np.nan) for alpha in curve.alpha.tolist()]))
    shown = shown_lazy(runs, curve)
    if shown is not None:
        return shown
    there = np.flatnonzero(curve.counts > 0)[-_LARGEST:]
    description = f"the {len(there)} largest alphas, not shown to be lazy"
    return Region(np.isin(np.arange(len(curve.alpha)), there), float("nan"), description)


def lazy_law(runs: pd.DataFrame, curve: WidthCurve) -> PowerLaw | None:
    """Fits a power law in sqrt(h) alpha to the lazy points; returns None if there are too few."""
    return fitted(curve, lazy_end(runs, curve).keep)


def lazy_findings(runs: pd.DataFrame, curves: Sequence[WidthCurve], of: str) -> dict[str, str]:
    """Returns the fitted slopes, each with a description of its points."""
    laws = {curve.h: (lazy_law(runs, curve), lazy_end(runs, curve)) for curve in curves}
    return {
        f"{of}, {_region_name(region)}, {named_width(h)}": f"{law} ({law.points} points, {region.description})"
        for h, (law, region) in laws.items()
        if law is not None
    }


def lazy_sentence(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> str:
    """Describes the fitted slopes in one sentence."""
    laws = [(curve.h, lazy_law(runs, curve), lazy_end(runs, curve)) for curve in curves]
    description = ", ".join(
        f"{law} ({named_width(h)}, {region.description})" for h, law, region in laws if law is not None
    )
    names = " or ".join(sorted({_region_name(region) for _, law, region in laws if law is not None}))
    return f"Slope on the {names}: {description}." if description else "Too few points on the lazy side for a slope."


def drift_at(runs: pd.DataFrame, alpha: float) -> str:
    """Describes the largest kernel drift of any width at an alpha as a clause; empty if it is unknown."""
    if not has(runs, DRIFT):
        return ""
    drifts: NDArray[np.float64] = across_widths(width_curves(runs, DRIFT), alpha, "alpha").band.mean
    known = drifts[np.isfinite(drifts)]
    return f", where kernels drift by {known.max():.2g} at most" if len(known) else ""


def _region_name(region: Region) -> str:
    return "lazy side" if np.isfinite(region.level) else "large-alpha side"


def _means(rows: pd.DataFrame, column: str, curve: WidthCurve) -> NDArray[np.float64]:
    """Returns a column's mean over seeds at the alphas of a curve of the same width, (k,); NaN if not measured."""
    (found,) = width_curves(rows, column)
    means = dict(zip(found.alpha.tolist(), found.band().mean.tolist(), strict=True))
    return np.array([means.get(alpha, np.nan) for alpha in curve.alpha.tolist()])
