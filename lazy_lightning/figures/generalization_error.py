"""Test error against alpha and sqrt(h) alpha of members, their ensemble average, and kernels as the lazy limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.analysis import mean_and_error, plateau, with_error
from lazy_lightning.analysis.plateau import FEWEST as PLATEAU_POINTS
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.ensembles import ensemble_curve
from lazy_lightning.figures.lazy_end import shown_lazy
from lazy_lightning.figures.marks import (
    Mark,
    draw_average,
    draw_band,
    draw_seeds,
    explain_average,
    legend_above,
    width_label,
    width_marks,
)
from lazy_lightning.figures.quantity import ERROR, LOSS, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import ALPHA_LABEL, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    KERNEL_AT_END,
    KERNEL_AT_INIT,
    WidthCurve,
    counted_seeds,
    errors_phrase,
    has,
    named_width,
    scale_label,
    seeds_phrase,
    unfinished_note,
    width_curves,
)
from lazy_lightning.figures.tested_samples import tested


class Level(NamedTuple):
    """The mean over seeds of a quantity of the kernel at initialisation, which does not depend on alpha."""

    h: float
    mean: float
    error: float
    seeds: int

    @property
    def low(self) -> float:
        """The mean minus one standard error."""
        return self.mean - self.error

    @property
    def high(self) -> float:
        """The mean plus one standard error."""
        return self.mean + self.error


class Series(NamedTuple):
    """All curves and levels of the figure."""

    members: list[WidthCurve]
    ensembles: list[WidthCurve]
    levels: list[Level]
    ends: list[WidthCurve]


def generalization_error(runs: pd.DataFrame) -> ReportFigure:
    """Draws the test error (or loss, for regression) of every width against alpha and against sqrt(h) alpha.

    Raises:
        AnalysisError: neither error nor loss on the test set was observed.
    """
    quantity = performance(runs)
    series = _series(runs, quantity)
    scaled = any(curve.h == curve.h for curve in series.members)
    with paper_style():
        figure = Figure(figsize=(6.6 if scaled else 3.8, 3.2))
        axes = figure.subplots(1, 1 + scaled, sharey=True, squeeze=False)[0]
        _draw(axes[0], series, quantity, lambda curve: curve.alpha)
        axes[0].set(xlabel=ALPHA_LABEL, ylabel=quantity.label)
        if scaled:
            _draw(axes[1], series, quantity, lambda curve: curve.scale)
            axes[1].set_xlabel(scale_label(series.members))
        _explain(axes[0], series)
        legend_above(figure, axes[0], columns=6 if scaled else 2)
    findings = _findings(runs, series, quantity) | (tested(runs, series.members) if quantity is ERROR else {})
    title = quantity.name.capitalize()
    return ReportFigure("test_error", title, _caption(runs, series, title), figure, _table(series, quantity), findings)


def _series(runs: pd.DataFrame, quantity: Quantity) -> Series:
    members = width_curves(runs, quantity.column)
    ensembles = [ensemble_curve(runs, curve.h) for curve in members] if quantity is ERROR else []
    at_init = width_curves(runs, quantity.column, KERNEL_AT_INIT) if has(runs, quantity.column, KERNEL_AT_INIT) else []
    ends = width_curves(runs, quantity.column, KERNEL_AT_END) if has(runs, quantity.column, KERNEL_AT_END) else []
    return Series(
        members, [e for e in ensembles if e is not None], [_level(curve, quantity) for curve in at_init], ends
    )


def _level(curve: WidthCurve, quantity: Quantity) -> Level:
    """Averages over seeds; the kernels of one seed at several alphas are counted once."""
    of_seeds = np.nanmean(curve.values, axis=0)
    mean, error = mean_and_error(of_seeds[None])
    return Level(curve.h, quantity.factor * float(mean[0]), quantity.factor * float(error[0]), len(of_seeds))


def _marks(series: Series) -> dict[float, Mark]:
    widths = {part.h for part in (*series.members, *series.ends)} | {level.h for level in series.levels}
    return width_marks(list(widths))


def _draw(axis: Axes, series: Series, quantity: Quantity, x: Callable[[WidthCurve], NDArray[np.float64]]) -> None:
    """Draws members as solid lines with filled markers, ensembles dashed with open ones, kernels at the end dotted."""
    marks, c = _marks(series), quantity.factor
    for curve in series.members:
        mark = marks[curve.h]._replace(line="-")
        draw_seeds(axis, x(curve), c * curve.values, mark)
        draw_band(axis, x(curve), curve.band(c), mark, width_label(curve.h))
    for curve in series.ensembles:
        draw_average(axis, x(curve), c * curve.values[:, 0], marks[curve.h])
    for curve in series.ends:
        axis.plot(x(curve), curve.band(c).mean, color=marks[curve.h].color, ls=":", lw=1.2)
    for level in series.levels:
        _draw_level(axis, level, marks[level.h])
    axis.set_xscale("log")
    values = np.concatenate([curve.values.ravel() for curve in series.members])
    positive = values[values > 0]
    if quantity is LOSS and positive.size and positive.max() > 10 * positive.min():
        axis.set_yscale("log")


def _draw_level(axis: Axes, level: Level, mark: Mark) -> None:
    """Draws a line over the whole panel, with its mean and error at the right edge."""
    axis.axhline(level.mean, color=mark.color, ls="-.", lw=0.8, alpha=0.8)
    error = level.error if np.isfinite(level.error) else 0.0
    shown = axis.errorbar(
        [1.0], [level.mean], [error], color=mark.color, fmt=mark.marker, lw=0.8, capsize=2, clip_on=False
    )
    for artist in shown.get_children():
        artist.set_transform(axis.get_yaxis_transform())


def _explain(axis: Axes, series: Series) -> None:
    if series.ensembles:
        explain_average(axis)
    if series.levels:
        axis.plot([], [], "-.", color="0.3", lw=0.8, label="kernel at init")
    if series.ends:
        axis.plot([], [], ":", color="0.3", lw=1.2, label="kernel at end")


def _findings(runs: pd.DataFrame, series: Series, quantity: Quantity) -> dict[str, str]:
    findings = {}
    for curve in series.members:
        shown = shown_lazy(runs, curve)
        if shown is None:
            description = "neither kernel drift nor tangent departure was observed"
            findings[f"plateau, not shown to be lazy, {named_width(curve.h)}"] = _plateau(curve, quantity, description)
        else:
            lazy = curve.at(shown.keep)
            findings[f"lazy plateau, {named_width(curve.h)}"] = _plateau(lazy, quantity, shown.description)
    for level in series.levels:
        value = with_error(level.mean, level.error) if level.seeds > 1 else f"{level.mean:.3g}"
        findings[f"kernel at init, {named_width(level.h)}"] = f"{value}{quantity.unit} ({counted_seeds([level.seeds])})"
    for curve in series.ensembles:
        best = int(np.nanargmin(curve.values))
        findings[f"best ensemble average, {named_width(curve.h)}"] = (
            f"{quantity.factor * curve.values[best, 0]:.3g}{quantity.unit} at "
            f"{scale_words(curve.h, float(curve.alpha[best]), own='alpha')}"
        )
    return findings


def _plateau(curve: WidthCurve, quantity: Quantity, description: str) -> str:
    """Describes the plateau of some points of a curve, or the reason why there is none.

    Args:
        curve: the points of the curve.
        quantity: the quantity that the curve shows.
        description: the condition by which the points were selected.
    """
    name = "alpha" if curve.h != curve.h else "sqrt(h) alpha"
    if len(curve.alpha) < PLATEAU_POINTS:
        few = f"{len(curve.alpha)} point{'s' * (len(curve.alpha) != 1)}"
        return f"none: {few} with {description}, expected {PLATEAU_POINTS}; extend the sweep"
    if curve.counts.max() < 2:
        return "none: it needs errors over seeds, and there is one seed"
    try:
        found = plateau(curve.scale, curve.values)
    except AnalysisError:
        return (
            f"none: no {PLATEAU_POINTS} points at the large end of {name} agree within two errors over seeds "
            f"({len(curve.alpha)} points; {description}); extend the sweep to larger {name}"
        )
    value = with_error(quantity.factor * found.value, quantity.factor * found.error)
    start = scale_words(curve.h, found.start if curve.h != curve.h else found.start / curve.h**0.5)
    span = f"over {found.decades:.2g} decades, from {start}"
    return f"{value}{quantity.unit} {span} ({description})"


def _caption(runs: pd.DataFrame, series: Series, title: str) -> str:
    parts = [f"{title} of networks: mean of {seeds_phrase(series.members)} ({errors_phrase(series.members)})"]
    if series.ensembles:
        parts.append("dashed: the average output of all seeds")
    if series.levels:
        counts = sorted({level.seeds for level in series.levels})
        seeds = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
        parts.append(
            f"dash-dotted: kernels frozen at initialisation, {seeds} seeds, with their error at the right edge"
        )
    if series.ends:
        parts.append("dotted: kernels frozen at the end of training")
    return "; ".join(parts) + "." + unfinished_note(runs)


def _table(series: Series, quantity: Quantity) -> pd.DataFrame:
    c = quantity.factor
    parts = [curve.long(model="network", **curve.band(c)._asdict()) for curve in series.members]
    parts += [e.long(model="ensemble", mean=c * e.values[:, 0]).assign(seeds=np.nan) for e in series.ensembles]
    parts += [curve.long(model=KERNEL_AT_END, **curve.band(c)._asdict()) for curve in series.ends]
    rows = [
        {"h": at.h, "seeds": at.seeds, "model": KERNEL_AT_INIT, "mean": at.mean, "low": at.low, "high": at.high}
        for at in series.levels
    ]
    parts += [pd.DataFrame(rows)] * bool(rows)
    return pd.concat(parts, ignore_index=True)
