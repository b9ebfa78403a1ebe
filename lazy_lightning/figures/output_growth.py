"""Growth of the output: rms of F on the test set during training, and at its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.flow_average import FlowCurve, Followed, draw_flow_curve, followed, mean_words
from lazy_lightning.figures.marks import (
    alpha_marks,
    draw_band,
    draw_seeds,
    log_axes,
    width_label,
    width_marks,
)
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_name, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    errors_phrase,
    named_width,
    scale_label,
    seeds_phrase,
    unfinished_note,
    width_curves,
)

RMS = "test/output_rms"
_LABEL = r"rms of $F$ on the test set"


def output_growth(runs: pd.DataFrame) -> ReportFigure:
    """Draws the rms of F against t at up to five alphas, and at the end against sqrt(h) alpha for all widths.

    Raises:
        AnalysisError: it was not observed, is 0 everywhere, or no curves are stored.
    """
    ends = [curve.positive() for curve in width_curves(runs, RMS) if (curve.values > 0).any()]
    if not ends:
        raise AnalysisError("the outputs of all networks are 0 everywhere: check whether they were trained")
    chosen = followed(runs, [RMS])
    averages = {alpha: chosen.average(alpha, RMS) for alpha in chosen.alphas}
    grown = {alpha: curve for alpha, curve in averages.items() if curve is not None and (curve.band.mean > 0).any()}
    chosen = chosen._replace(alphas=list(grown))
    with paper_style():
        figure = Figure(figsize=(7.2, 3.5))
        left, right = figure.subplots(1, 2)
        _draw_growth(left, grown, chosen)
        _draw_ends(right, ends)
    caption = (
        f"Growth of the output. Left: {chosen.description}, {mean_words(list(grown.values()))}. Right: at the end of "
        f"training, geometric mean of {seeds_phrase(ends)} ({errors_phrase(ends)}). Dotted: a margin of 1."
        f"{unfinished_note(runs)}"
    )
    return ReportFigure(
        "output_growth", "Growth of the output", caption, figure, _table(grown, chosen.h, ends), _findings(ends)
    )


def _draw_growth(axis: Axes, grown: dict[float, FlowCurve], chosen: Followed) -> None:
    marks = alpha_marks(list(grown))
    for alpha, curve in grown.items():
        draw_flow_curve(axis, curve, marks[alpha])
        axis.plot([], [], **marks[alpha].line_style, label=scale_name(chosen.h, alpha))
    axis.set(xlabel="$t$", ylabel=_LABEL)
    log_axes(axis)
    _finish(axis, title=chosen.title)


def _draw_ends(axis: Axes, ends: Sequence[WidthCurve]) -> None:
    marks = width_marks([curve.h for curve in ends])
    for curve in ends:
        draw_seeds(axis, curve.scale, curve.values, marks[curve.h])
        draw_band(axis, curve.scale, curve.log_band(), marks[curve.h], width_label(curve.h))
    axis.set(xlabel=scale_label(ends), ylabel="rms of $F$ at the end")
    values = np.concatenate([curve.values.ravel() for curve in ends])
    log_axes(axis, y=bool(np.nanmax(values) > 10 * np.nanmin(values)))
    _finish(axis)


def _finish(axis: Axes, title: str | None = None) -> None:
    """Draws a line at the margin 1 of hinge losses, and the legend above the panel."""
    axis.axhline(1.0, color="0.5", lw=0.8, ls=":")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, title=title)


def _table(grown: dict[float, FlowCurve], h: float, ends: Sequence[WidthCurve]) -> pd.DataFrame:
    parts = [curve.long(at="end", **curve.log_band()._asdict()) for curve in ends]
    for alpha, curve in grown.items():
        who = {"h": h, "alpha": alpha, "sqrt_h_alpha": h**0.5 * alpha, "seeds": curve.seeds, "at": "t", "t": curve.t}
        parts.append(pd.DataFrame({**who, **curve.band._asdict()}))
    return pd.concat(parts, ignore_index=True)


def _findings(ends: Sequence[WidthCurve]) -> dict[str, str]:
    findings = {}
    for curve in ends:
        mean = curve.log_band().mean
        findings[f"rms of F at the end, {named_width(curve.h)}"] = (
            f"{mean[0]:.3g} at {scale_words(curve.h, curve.alpha[0])}, "
            f"{mean[-1]:.3g} at {scale_words(curve.h, curve.alpha[-1])}"
        )
    return findings
