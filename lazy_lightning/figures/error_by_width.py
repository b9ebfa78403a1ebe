"""The test error against h at the ends of alpha, with the ensemble average and the frozen kernel, at the largest n."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.ensembles import ensemble_curve
from lazy_lightning.figures.error_by_samples import SAMPLES, common_alphas
from lazy_lightning.figures.layers import tick_widths
from lazy_lightning.figures.marks import (
    draw_average,
    draw_band,
    draw_seeds,
    explain_average,
    legend_above,
    offset_marks,
    plain,
)
from lazy_lightning.figures.quantity import ERROR, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    KERNEL_AT_INIT,
    NETWORK,
    WidthCurve,
    errors_phrase,
    finished,
    has,
    of_width,
    seeds_phrase,
    sorted_widths,
    unfinished_note,
    width_curves,
)


class _Line(NamedTuple):
    name: str
    curve: WidthCurve
    """The curve, whose attribute ``alpha`` contains h."""
    ensemble: WidthCurve | None


def error_by_width(runs: pd.DataFrame) -> ReportFigure:
    """Draws the test error (or loss) against h at the smallest and the largest alpha of each width.

    Raises:
        AnalysisError: fewer than two widths have finished, or no test error was observed.
    """
    quantity = performance(runs)
    n = float(pd.to_numeric(finished(runs)[SAMPLES]).max())
    lines = _lines(runs[pd.to_numeric(runs[SAMPLES]) == n], quantity)
    if not lines:
        raise AnalysisError(
            f"fewer than two widths were trained at {SAMPLES} = {n:g}: sweep model.network.width, for example [30, 100]"
        )
    c = quantity.factor
    with paper_style():
        figure = Figure(figsize=(4.2, 3.4))
        axis = figure.subplots()
        for line, mark in zip(lines, offset_marks(len(lines), 0), strict=True):
            draw_seeds(axis, line.curve.alpha, c * line.curve.values, mark)
            draw_band(axis, line.curve.alpha, line.curve.band(c), mark._replace(line="-"), line.name)
            if line.ensemble is not None:
                draw_average(axis, line.ensemble.alpha, c * line.ensemble.values[:, 0], mark)
        if any(line.ensemble is not None for line in lines):
            explain_average(axis)
        axis.set(xlabel="$h$", ylabel=quantity.label, xscale="log")
        tick_widths(axis, [float(h) for line in lines for h in line.curve.alpha])
        legend_above(figure, axis, columns=2)
    curves = [line.curve for line in lines]
    caption = (
        f"{quantity.name.capitalize()} against h at n = {plain(n)} training samples: mean of {seeds_phrase(curves)} "
        f"({errors_phrase(curves)}). Dashed: the average over the weights of one training set.{unfinished_note(runs)}"
    )
    title = f"{quantity.name.capitalize()} by width, with ensemble and kernel"
    return ReportFigure("error_by_width", title, caption, figure, _table(lines, quantity))


def _lines(runs: pd.DataFrame, quantity: Quantity) -> list[_Line]:
    lines = []
    for model in (NETWORK, KERNEL_AT_INIT):
        if not has(runs, quantity.column, model):
            continue
        rows = finished(runs, model)
        widths = [h for h in sorted_widths(rows) if h == h]
        ends = {h: common_alphas(of_width(rows, h)) for h in widths}
        names = ["smallest alpha", "largest alpha"] if model == NETWORK else ["kernel at init"]
        for i, name in enumerate(names):
            if model == NETWORK and i == 1 and all(len(alphas) == 1 for alphas in ends.values()):
                continue
            parts = [
                chosen[chosen["alpha"] == ends[h][-1 if i else 0]].assign(alpha=h, h=np.nan)
                for h in widths
                for chosen in [of_width(rows, h)]
            ]
            if len(parts) > 1:
                moved = pd.concat(parts)
                (curve,) = width_curves(moved, quantity.column, model)
                ensemble = ensemble_curve(moved, float("nan")) if quantity is ERROR and model == NETWORK else None
                lines.append(_Line(name, curve, ensemble))
    return lines


def _table(lines: list[_Line], quantity: Quantity) -> pd.DataFrame:
    parts = []
    for name, *curves in lines:
        for kind, curve in zip(("members", "ensemble"), curves, strict=True):
            if curve is not None:
                band = curve.band(quantity.factor)._asdict()
                parts.append(pd.DataFrame({"line": name, "h": curve.alpha, "of": kind, "draws": curve.counts, **band}))
    return pd.concat(parts, ignore_index=True)
