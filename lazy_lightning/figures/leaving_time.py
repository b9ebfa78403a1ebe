"""t1, the time to leave the tangent space, against sqrt(h) alpha, compared with t_lazy, the time scale if lazy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.analysis import PowerLaw, mean_and_error, within_factor
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.asymptotic_regions import Region, clear_shift, draw_guide, feature_region_of, fitted
from lazy_lightning.figures.draws import draws
from lazy_lightning.figures.marks import Mark, draw_band, draw_seeds, legend_above, log_axes, width_label, width_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    errors_phrase,
    finished,
    has,
    named_width,
    of_width,
    scale_label,
    seeds_phrase,
    unfinished_note,
    width_curves,
)

DEFINITIONS = {
    "t1/half_loss": "train loss halved",
    "t1/kernel_drift": "kernel drift",
    "t1/tangent_departure": "tangent departure",
}
_IN_CAPTION = 3
"""Number of widths, the largest, whose slopes are in the caption; the findings contain all."""
_LAZY_TIMES = {
    "t_lazy/labels": "t_lazy along the labels",
    "t_lazy/norm": "t_lazy of the kernel's largest eigenvalue",
}


class _Fit(NamedTuple):
    curve: WidthCurve
    region: Region
    law: PowerLaw


class _LazyTime(NamedTuple):
    name: str
    mean: float
    """Geometric mean over all members, because it depends neither on alpha nor, up to fluctuations, on h."""
    log10_error: float
    """Standard error of log10 mean, NaN for one member."""


def leaving_time(runs: pd.DataFrame) -> ReportFigure:
    """Draws t1 by each observed definition, with its slope in the feature regime, and t_lazy.

    Slopes are fitted to points with a kernel drift above 100, 10 or 1, the first of these levels that leaves three
    points of a width, or with a tangent departure above 0.9 or 0.5 if the drift was not observed.

    Raises:
        AnalysisError: t1 was not observed, or no member has left the tangent space.
    """
    rows = finished(runs)
    panels = {name: [c.positive() for c in width_curves(rows, name)] for name in DEFINITIONS if has(rows, name)}
    if not panels:
        raise AnalysisError("t1 was not measured, or was nowhere reached: add callbacks/t1.yaml to the configuration")
    whole = {name: [_reached_by_all(runs, curve) for curve in curves] for name, curves in panels.items()}
    fits = {name: _fits(runs, curves) for name, curves in whole.items()}
    lazy = _lazy_time(runs)
    with paper_style():
        figure = Figure(figsize=(3.1 * max(len(panels), 1.3), 3.2))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        marks = width_marks([curve.h for curves in panels.values() for curve in curves])
        for axis, (name, curves) in zip(axes, panels.items(), strict=True):
            _draw(axis, curves, whole[name], marks, lazy)
            _draw_slope(axis, fits[name], whole[name])
            axis.set_title(f"$t_1$: {DEFINITIONS[name]}")
        for axis in axes:
            log_axes(axis)
        axes[0].set_ylabel("$t_1$")
        _legend(figure, axes[0], marks, lazy)
    caption = (
        f"Time to leave the tangent space, geometric mean of {seeds_phrase(panels[next(iter(panels))])} ("
        f"{errors_phrase(panels[next(iter(panels))])}, alone where others have not left it). "
        f"{_sentence(fits)}{_lazy_sentence(lazy)}{unfinished_note(runs)}"
    )
    return ReportFigure(
        "leaving_time", "Time to leave the tangent space", caption, figure, _table(panels, whole), _findings(fits, lazy)
    )


def _fits(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> list[_Fit]:
    found = []
    for curve in curves:
        region = feature_region_of(runs, curve)
        law = None if region is None else fitted(curve, region.keep)
        if region is not None and law is not None:
            found.append(_Fit(curve, region, law))
    return found


def _lazy_time(runs: pd.DataFrame) -> _LazyTime | None:
    column = next((name for name in _LAZY_TIMES if has(runs, name)), None)
    if column is None:
        return None
    of_members = np.concatenate([np.nanmean(c.values, axis=0) for c in width_curves(runs, column)])
    mean, error = mean_and_error(np.log10(of_members[of_members > 0])[None])
    return _LazyTime(_LAZY_TIMES[column], float(10.0 ** mean[0]), float(error[0]))


def _reached_by_all(runs: pd.DataFrame, curve: WidthCurve) -> WidthCurve:
    """Returns the alphas at which every finished member has a t1, because a mean over some of them is biased."""
    members = of_width(finished(runs), curve.h)
    draw = members.assign(_draw=draws(members).labels).groupby("alpha")["_draw"].nunique()
    return curve.at(curve.counts == draw.reindex(curve.alpha).to_numpy())


def _draw(
    axis: Axes,
    curves: Sequence[WidthCurve],
    whole: Sequence[WidthCurve],
    marks: dict[float, Mark],
    lazy: _LazyTime | None,
) -> None:
    if lazy is not None:
        axis.axhline(lazy.mean, color="0.4", lw=0.9, ls="-.")
    for curve in curves:
        draw_seeds(axis, curve.scale, curve.values, marks[curve.h])
    for curve in whole:
        draw_band(axis, curve.scale, curve.log_band(), marks[curve.h])
    axis.set_xlabel(scale_label(curves))


def _draw_slope(axis: Axes, fits: Sequence[_Fit], curves: Sequence[WidthCurve]) -> None:
    """Draws the slope of the widest network, because the curves collapse."""
    if fits:
        fit = fits[-1]
        x = fit.curve.scale[fit.region.keep]
        draw_guide(axis, fit.law, x, clear_shift(fit.law, x, curves, above=False))


def _legend(figure: Figure, axis: Axes, marks: dict[float, Mark], lazy: _LazyTime | None) -> None:
    for h, mark in marks.items():
        axis.plot([], [], **mark.line_style, label=width_label(h))
    if lazy is not None:
        axis.plot([], [], color="0.4", lw=0.9, ls="-.", label=r"$t_\mathrm{lazy}$")
    legend_above(figure, axis)


def _sentence(fits: dict[str, list[_Fit]]) -> str:
    description = [
        f"by {DEFINITIONS[name]} {', '.join(f'{fit.law} ({named_width(fit.curve.h)})' for fit in found[-_IN_CAPTION:])}"
        for name, found in fits.items()
        if found
    ]
    if not description:
        return "No slope is fitted: the feature regime has too few points, or no observer has measured it."
    levels = sorted({fit.region.description for found in fits.values() for fit in found})
    return f"Slopes against sqrt(h) alpha in the feature regime ({', '.join(levels)}): {'; '.join(description)}."


def _lazy_sentence(lazy: _LazyTime | None) -> str:
    if lazy is None:
        return ""
    unit = "the unit of time of lazy training: its loss halves in a fraction of it"
    return f" Dash-dotted: {lazy.name} = {_format_time(lazy)}, {unit}."


def _format_time(lazy: _LazyTime) -> str:
    return within_factor(lazy.mean, lazy.log10_error) if np.isfinite(lazy.log10_error) else f"{lazy.mean:.3g}"


def _findings(fits: dict[str, list[_Fit]], lazy: _LazyTime | None) -> dict[str, str]:
    findings = {
        f"slope of t1 ({DEFINITIONS[name]}), {named_width(fit.curve.h)}": (
            f"{fit.law} ({fit.law.points} points, {fit.region.description})"
        )
        for name, found in fits.items()
        for fit in found
    }
    return findings if lazy is None else findings | {lazy.name: _format_time(lazy)}


def _table(panels: dict[str, list[WidthCurve]], whole: dict[str, list[WidthCurve]]) -> pd.DataFrame:
    """Returns the means at alphas at which all members have a t1, and the values of every member."""
    means = [c.long(definition=name, **c.log_band()._asdict()) for name, curves in whole.items() for c in curves]
    seeds = [
        c.long(definition=name, seed=seed, t1=c.values[:, i]).drop(columns="seeds").dropna(subset="t1")
        for name, curves in panels.items()
        for c in curves
        for i, seed in enumerate(c.seeds)
    ]
    return pd.concat([part for part in [*means, *seeds] if not part.empty], ignore_index=True)
