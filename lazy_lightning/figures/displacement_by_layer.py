"""Displacement of the weights: in total against sqrt(h) alpha, and by layer against h."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.across_widths import AcrossWidths, common_range
from lazy_lightning.figures.asymptotic_regions import draw_guide
from lazy_lightning.figures.layers import (
    draw_layers,
    layer_findings,
    layer_table,
    layers_across_widths,
    layers_note,
    layers_of,
    some_of,
)
from lazy_lightning.figures.lazy_end import drift_at, lazy_end, lazy_findings, lazy_law, lazy_sentence
from lazy_lightning.figures.marks import draw_band, log_axes, number, plain, width_label, width_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    error_words,
    finished,
    scale_label,
    seeds_phrase,
    sorted_widths,
    unfinished_note,
    width_curves,
)

TOTAL = "displacement/total"
_LABELS = {
    "displacement": r"$\Vert w - w_0 \Vert / \Vert w_0 \Vert$",
    "dw_mean": r"mean $|W_{ij}(t) - W_{ij}(0)|$",
}

ByLayer = dict[str, dict[str, AcrossWidths]]
"""Curves against h by quantity, then by layer."""


def displacement_by_layer(runs: pd.DataFrame) -> ReportFigure:
    """Draws sqrt(h) ‖w - w0‖/‖w0‖ against sqrt(h) alpha, and ‖w - w0‖/‖w0‖ and mean |dW_ij| by layer against h.

    The quantities by layer are drawn at one large alpha. In lazy networks sqrt(h) ‖w - w0‖/‖w0‖ ~ 1/(sqrt(h) alpha),
    and both quantities by layer are ~ 1/h in hidden layers and ~ 1/sqrt(h) in the first and last layer
    (arXiv:1906.08034).

    Raises:
        AnalysisError: the displacement was not observed, or is 0 everywhere.
    """
    curves = [scaled for curve in width_curves(runs, TOTAL) if (scaled := _scaled(curve)).counts.any()]
    if not curves:
        raise AnalysisError(
            "no weight has moved, the displacement is 0 everywhere: check whether the networks were trained"
        )
    by_layer, alpha = _by_layer(runs, curves)
    with paper_style():
        figure = Figure(figsize=(3.3 * (1 + len(by_layer)), 3.2))
        first, *others = figure.subplots(1, 1 + len(by_layer), squeeze=False)[0]
        _draw_total(first, runs, curves)
        for axis, (quantity, found) in zip(others, by_layer.items(), strict=True):
            draw_layers(axis, found)
            _finish(axis, quantity, alpha, layers_note(found))
    caption = (
        f"Weights at the end of training, geometric means over {seeds_phrase(curves)} (bands: {error_words(curves)}). "
    )
    caption += lazy_sentence(runs, curves) + _layers_sentence(runs, by_layer, alpha) + unfinished_note(runs)
    findings = lazy_findings(runs, curves, "slope of sqrt(h) ‖w − w0‖/‖w0‖")
    for quantity, found in by_layer.items():
        findings |= layer_findings(found, "‖w − w0‖/‖w0‖" if quantity == "displacement" else "mean |dW|")
    tables = [
        curve.long(quantity="sqrt(h) displacement", layer="total", **curve.log_band()._asdict()) for curve in curves
    ]
    tables += [layer_table(found, quantity) for quantity, found in by_layer.items()]
    return ReportFigure(
        "displacement_by_layer",
        "Weight displacement",
        caption,
        figure,
        pd.concat(tables, ignore_index=True),
        findings,
    )


def _scaled(curve: WidthCurve) -> WidthCurve:
    factor = 1.0 if curve.h != curve.h else np.sqrt(curve.h)
    return replace(curve, values=factor * curve.values).positive()


def _by_layer(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> tuple[ByLayer, float]:
    """Returns the quantities by layer at the largest common alpha, and this alpha; none for fewer than two widths."""
    known = [curve for curve in curves if curve.h == curve.h]
    if len(known) < 2:
        return {}, float("nan")
    try:
        _, alpha = common_range(known, "alpha")
    except AnalysisError:
        return {}, float("nan")
    found = {q: layers_across_widths(runs, q, alpha, "alpha") for q in _LABELS if layers_of(runs, q)}
    return found, alpha


def _draw_total(axis: Axes, runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> None:
    marks = width_marks([curve.h for curve in curves])
    for curve in curves:
        draw_band(axis, curve.scale, curve.log_band(), marks[curve.h], width_label(curve.h))
    widest = curves[-1]
    law = lazy_law(runs, widest)
    if law is not None:
        draw_guide(axis, law, widest.scale[lazy_end(runs, widest).keep], 0.3)
    log_axes(axis)
    axis.set_xlabel(scale_label(curves))
    plain = all(curve.h != curve.h for curve in curves)
    axis.set_ylabel(("" if plain else r"$\sqrt{h}\;$") + _LABELS["displacement"])
    axis.legend()


def _finish(axis: Axes, quantity: str, alpha: float, note: str) -> None:
    axis.set_ylabel(_LABELS[quantity])
    axis.set_title(rf"$\alpha = {number(alpha, 3)}$" + (f"\n({note})" if note else ""))


def _layers_sentence(runs: pd.DataFrame, by_layer: ByLayer, alpha: float) -> str:
    if not by_layer:
        several = len([h for h in sorted_widths(finished(runs)) if h == h]) > 1
        missing = "no common alpha, or no measurements by layer" if several else "only one width"
        return f" Nothing is shown against h, because there is {missing}."
    layers = list(next(iter(by_layer.values())))
    chosen = (
        f" {len(some_of(layers))} of {len(layers)} layers are drawn, all are in the table." if len(layers) > 5 else ""
    )
    note = layers_note(next(iter(by_layer.values())))
    between = f"; {note} between trained alphas, linearly in both logarithms" if note else ""
    return (
        f" By layer at α = {plain(alpha)}, the largest common to all widths{drift_at(runs, alpha)}{between}.{chosen} "
        "Lazy networks should have slope -1 in hidden layers and -1/2 in the first and the last layer."
    )
