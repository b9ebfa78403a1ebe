"""Which points of a curve are lazy by what was observed of them, and the curve's slope there."""

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
    """The points of a curve at its large end that are lazy by all that was observed; None if nothing was.

    Kernel drift and tangent departure, means over seeds, must be below 0.1, at each point that has been measured and
    at all larger alphas; points at which neither was measured are left out. So are points at which training has not
    gone far enough to tell (see :func:`undecided`): every network is close to its linearisation before it has learnt.
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
            f"; left out, as the training loss has not been seen to fall to {share}: {too_early.sum()} larger alphas"
        )
    return Region(lazy & ~too_early, LAZY_BELOW, description)


def undecided(rows: pd.DataFrame, curve: WidthCurve) -> NDArray[np.bool_]:
    """Whether the training of a point has not gone far enough to call it lazy, (k,).

    As in a run's summary: the members have not all ended by themselves, and their training loss has not fallen to
    half its start, in the mean over those whose curves tell.
    """
    members = rows[(rows["status"] == "finished") & (rows["model"] == NETWORK)]
    early = members[~members["reason"].isin(ENDED_BY_ITSELF)] if "reason" in members else members[:0]
    alphas = set(early["alpha"].tolist())
    shares = _loss_shares(members[members["alpha"].isin(alphas)])
    return np.array([a in alphas and not shares.get(a, np.inf) <= TRAINED_BELOW for a in curve.alpha.tolist()])


def _loss_shares(members: pd.DataFrame) -> dict[float, float]:
    """The last training loss over the first one, mean over the seeds of each alpha; without those not known."""
    if members.empty:
        return {}
    try:
        curves = members.curves.load(["train/loss"])
    except (AttributeError, ConfigError):  # a table that was not read from runs has no curves
        return {}
    curves = curves.sort_values(["id", "observation"], kind="stable").dropna(subset=["train/loss"])
    ends = curves.groupby(["alpha", "id"])["train/loss"].agg(["first", "last"])
    shares: pd.Series[float] = (ends["last"] / ends["first"]).groupby("alpha").mean()
    return {float(str(alpha)): float(share) for alpha, share in shares.items()}


def lazy_end(runs: pd.DataFrame, curve: WidthCurve) -> Region:
    """The points of a curve where the kernel has hardly moved.

    By the tangent departure where the drift was not observed; the three largest alphas where neither was.
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
    """In sqrt(h) alpha; None where too few points are lazy."""
    return fitted(curve, lazy_end(runs, curve).keep)


def lazy_findings(runs: pd.DataFrame, curves: Sequence[WidthCurve], of: str) -> dict[str, str]:
    """The slopes there are, each with the points it is of."""
    laws = {curve.h: (lazy_law(runs, curve), lazy_end(runs, curve)) for curve in curves}
    return {
        f"{of}, {_region_name(region)}, {named_width(h)}": f"{law} ({law.points} points, {region.description})"
        for h, (law, region) in laws.items()
        if law is not None
    }


def lazy_sentence(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> str:
    """The slopes in words."""
    laws = [(curve.h, lazy_law(runs, curve), lazy_end(runs, curve)) for curve in curves]
    description = ", ".join(
        f"{law} ({named_width(h)}, {region.description})" for h, law, region in laws if law is not None
    )
    names = " or ".join(sorted({_region_name(region) for _, law, region in laws if law is not None}))
    return f"Slope on the {names}: {description}." if description else "Too few points on the lazy side for a slope."


def drift_at(runs: pd.DataFrame, alpha: float) -> str:
    """How lazy the networks are at an alpha: the largest kernel drift of any width, as a clause; empty if not known."""
    if not has(runs, DRIFT):
        return ""
    drifts: NDArray[np.float64] = across_widths(width_curves(runs, DRIFT), alpha, "alpha").band.mean
    known = drifts[np.isfinite(drifts)]
    return f", where kernels drift by {known.max():.2g} at most" if len(known) else ""


def _region_name(region: Region) -> str:
    return "lazy side" if np.isfinite(region.level) else "large-alpha side"


def _means(rows: pd.DataFrame, column: str, curve: WidthCurve) -> NDArray[np.float64]:
    """A column's mean over seeds at the alphas of a curve of the same width, (k,); NaN where it was not measured."""
    (found,) = width_curves(rows, column)
    means = dict(zip(found.alpha.tolist(), found.band().mean.tolist(), strict=True))
    return np.array([means.get(alpha, np.nan) for alpha in curve.alpha.tolist()])
