"""Initial velocity of the preactivations by layer against h, and their drift against sqrt(h) alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.across_widths import AcrossWidths, common_range
from lazy_lightning.figures.layers import (
    draw_layers,
    layer_findings,
    layer_table,
    layers_across_widths,
    layers_note,
    layers_of,
    some_of,
)
from lazy_lightning.figures.lazy_end import lazy_findings
from lazy_lightning.figures.marks import draw_band, log_axes, width_label, width_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import common_scale_math, common_scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    finished,
    scale_label,
    seeds_phrase,
    sorted_widths,
    unfinished_note,
    width_curves,
)

SPEED, DRIFT = "activation_velocity", "activation_drift"
_COLUMNS = 3

Drifts = dict[str, list[WidthCurve]]
"""A curve for each width, by layer."""


def activation_velocity(runs: pd.DataFrame) -> ReportFigure:
    """Draws rms dz/dt at t = 0 by layer against h at one sqrt(h) alpha, and rms(z_end - z_0) against sqrt(h) alpha.

    The velocity is ~ 1/alpha at any alpha, because all flows start with F = 0. At fixed sqrt(h) alpha that of the
    hidden layers does not depend on h, and that of the output, which is ‖Theta‖/alpha, grows as sqrt(h).

    Raises:
        AnalysisError: neither was observed, or both are 0 everywhere.
    """
    speeds, at = _speeds(runs)
    drifts = _drifts(runs)
    if not speeds and not drifts:
        raise AnalysisError(
            "speed and drift of the preactivations were not measured, or are 0 everywhere: add "
            "callbacks/activation.yaml to the configuration"
        )
    shown = some_of(list(drifts))
    with paper_style():
        figure, axes = _panels(bool(speeds) + len(shown))
        if speeds:
            _draw_speeds(axes.pop(0), speeds, at)
        for axis, layer in zip(axes, shown, strict=True):
            _draw_drift(axis, layer, drifts[layer])
        if shown:
            axes[0].legend()
    findings = layer_findings(speeds, "activation velocity")
    for layer, curves in drifts.items():
        findings |= lazy_findings(runs, curves[-1:], f"slope of the activation drift of {layer}")  # widest network
    caption = _caption(runs, speeds, at, drifts) + unfinished_note(runs)
    return ReportFigure(
        "activation_velocity", "Velocity and drift of activations", caption, figure, _table(speeds, drifts), findings
    )


def _speeds(runs: pd.DataFrame) -> tuple[dict[str, AcrossWidths], float]:
    """Returns the velocities by layer at the common sqrt(h) alpha nearest to 1; none for a single width."""
    layers = layers_of(runs, SPEED)
    known = [curve for layer in layers for curve in _moving(runs, SPEED, layer) if curve.h == curve.h]
    if len({curve.h for curve in known}) < 2:
        return {}, math.nan
    try:
        low, high = common_range(known, "scale")
    except AnalysisError:
        return {}, math.nan
    at = min(max(1.0, low), high)
    return layers_across_widths(runs, SPEED, at, "scale"), at


def _drifts(runs: pd.DataFrame) -> Drifts:
    found = {layer: _moving(runs, DRIFT, layer) for layer in layers_of(runs, DRIFT)}
    return {layer: curves for layer, curves in found.items() if curves}


def _moving(runs: pd.DataFrame, quantity: str, layer: str) -> list[WidthCurve]:
    curves = [curve.positive() for curve in width_curves(runs, f"{quantity}/{layer}")]
    return [curve for curve in curves if curve.counts.any()]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows))
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _draw_speeds(axis: Axes, speeds: Mapping[str, AcrossWidths], at: float) -> None:
    draw_layers(axis, speeds)
    axis.set_ylabel(r"rms $\dot z$ at $t = 0$")
    note = layers_note(speeds)
    axis.set_title(common_scale_math(at) + (f"\n({note})" if note else ""))


def _draw_drift(axis: Axes, layer: str, curves: Sequence[WidthCurve]) -> None:
    marks = width_marks([curve.h for curve in curves])
    for curve in curves:
        draw_band(axis, curve.scale, curve.log_band(), marks[curve.h], width_label(curve.h))
    log_axes(axis)
    axis.set_xlabel(scale_label(curves))
    axis.set_ylabel(r"rms$\,(z_\mathrm{end} - z_0)$")
    axis.set_title(layer)


def _caption(runs: pd.DataFrame, speeds: Mapping[str, AcrossWidths], at: float, drifts: Drifts) -> str:
    parts = []
    if speeds:
        note = layers_note(speeds)
        where = common_scale_words(at, "√h α")
        if note:
            where += f" ({note} between trained alphas, linearly in both logarithms)"
        parts.append(
            f"Velocity of the preactivations at the start at {where}, where that of hidden layers should "
            "not depend on h, and that of the output grow as √h."
        )
    elif len([h for h in sorted_widths(finished(runs)) if h == h]) < 2:
        parts.append("Velocities are not shown against h, because there is only one width.")
    if drifts:
        curves = [curve for found in drifts.values() for curve in found]
        fewer = f" {len(some_of(list(drifts)))} of {len(drifts)} layers are drawn." if len(drifts) > 5 else ""
        parts.append(
            f"Drift over training, against √h α: ~ 1/(√h α) in lazy networks. Geometric means over "
            f"{seeds_phrase(curves)}. The last layer's preactivation is the output f = F/α, which at fixed √h α is "
            f"~ √h.{fewer}"
        )
    return " ".join(parts)


def _table(speeds: Mapping[str, AcrossWidths], drifts: Drifts) -> pd.DataFrame:
    tables = [layer_table(speeds, SPEED)] if speeds else []
    tables += [
        curve.long(quantity=DRIFT, layer=layer, **curve.log_band()._asdict())
        for layer, curves in drifts.items()
        for curve in curves
    ]
    return pd.concat(tables, ignore_index=True)
