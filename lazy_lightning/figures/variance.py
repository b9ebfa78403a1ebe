"""Fluctuations of the trained function between seeds: Var F on the test set against sqrt(h) alpha and h."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.figures.layers import tick_widths
from lazy_lightning.figures.marks import (
    Mark,
    headroom,
    legend_above,
    log_axes,
    offset_marks,
    slope_label,
    width_label,
    width_marks,
)
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import common_scale_math, common_scale_words
from lazy_lightning.figures.seed_variance import End, VarianceCurve, variance_curves, variance_ends
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import scale_label, unfinished_note


def variance(runs: pd.DataFrame) -> ReportFigure:
    """Draws the unbiased variance of F over seeds, averaged over test samples; at both ends of the sweep against h.

    The expected dependence on h is 1/h.

    Raises:
        AnalysisError: outputs are not stored, no alpha has two seeds, or the runs have different test samples.
    """
    curves = variance_curves(runs)
    ends = variance_ends(curves)
    with paper_style():
        figure = Figure(figsize=(3.4 * (1 + bool(ends)), 3.0))
        axes = figure.subplots(1, 1 + bool(ends), squeeze=False)[0]
        _draw_scales(axes[0], curves)
        if ends:
            _draw_ends(axes[1], ends)
        legend_above(figure, axes[0])
    laws = {end.name: (end, end.law) for end in ends}
    findings = {
        f"slope of Var F against h, {name} end": f"{law} (at {common_scale_words(end.at)}{_also(end)})"
        for name, (end, law) in laws.items()
        if law is not None
    }
    caption = _caption(curves, ends) + unfinished_note(runs)
    return ReportFigure("variance", "Variance over seeds", caption, figure, _table(curves, ends), findings)


def _draw_scales(axis: Axes, curves: Sequence[VarianceCurve]) -> None:
    marks = width_marks([curve.curve.h for curve in curves])
    for curve in curves:
        _bars(axis, curve.curve.scale, curve.variance, curve.errors, marks[curve.curve.h], width_label(curve.curve.h))
    log_axes(axis)
    axis.set_xlabel(scale_label([curve.curve for curve in curves]))
    axis.set_ylabel(r"$\mathrm{Var}_\mathrm{seeds}\, F$, mean over test samples")


def _draw_ends(axis: Axes, ends: Sequence[End]) -> None:
    for end, mark in zip(ends, offset_marks(len(ends), 3), strict=True):
        law = end.law
        slope = "" if law is None else f"\n{slope_label(law.slope, law.error)}"
        label = f"{common_scale_math(end.at)} ({end.name}{_also(end)}){slope}"
        _bars(axis, end.h, end.variance, end.errors, mark._replace(line="none" if law else mark.line), label)
        if law is not None:
            axis.plot(end.h, law.at(end.h), color=mark.color, ls=mark.line, lw=1.0)
    log_axes(axis)
    tick_widths(axis, [float(h) for end in ends for h in end.h])
    headroom(axis, 0.17 * len(ends))
    axis.legend(loc="upper right")


def _bars(
    axis: Axes, x: NDArray[np.float64], y: NDArray[np.float64], errors: NDArray[np.float64], mark: Mark, label: str
) -> None:
    """Draws error bars, which end at a tenth of the value if they would reach 0, because a log axis has no 0."""
    down = np.minimum(errors, 0.9 * y)
    axis.errorbar(
        x,
        y,
        yerr=[np.nan_to_num(down), np.nan_to_num(errors)],
        label=label,
        capsize=2,
        elinewidth=0.8,
        **mark.line_style,
    )


def _caption(curves: Sequence[VarianceCurve], ends: Sequence[End]) -> str:
    seeds = np.concatenate([curve.seeds for curve in curves])
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    description = (
        f"Variance of F over {count} seeds, mean over the test samples; bars: one jackknife error over these seeds."
    )
    if (seeds < 3).all():
        description = f"Variance of F over {count} seeds, mean over the test samples; of two seeds it has no error."
    for end in ends:
        law = end.law
        slope = "too few widths for a slope" if law is None else f"slope {law} in h, expected -1"
        description += f" At the {end.name} end, {common_scale_words(end.at, '√h α')}{_also(end)}: {slope}."
    return (
        description if ends else description + " Nothing is shown against h, because no two widths have a common √h α."
    )


def _also(end: End) -> str:
    """Returns a clause such as ``, interpolated at h = 30``, or an empty string."""
    return f", {end.note}" if end.note else ""


def _table(curves: Sequence[VarianceCurve], ends: Sequence[End]) -> pd.DataFrame:
    tables = [
        curve.curve.long(panel="scale", variance=curve.variance, error=curve.errors).assign(seeds=curve.seeds)
        for curve in curves
    ]
    tables += [
        pd.DataFrame(
            {"h": end.h, "alpha": end.at / np.sqrt(end.h), "sqrt_h_alpha": end.at, "panel": f"{end.name} end",
             "variance": end.variance, "error": end.errors, "interpolated": ~end.trained}
        )
        for end in ends
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)
