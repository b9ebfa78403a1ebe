"""Coordinate check: how much a step of an optimizer, and a whole run, change activations, by layer against h."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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
)
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import common_scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import error_words, finished, seeds_phrase, unfinished_note, width_curves

DRIFT = "activation_drift"
OUTPUT = "F"


class ActivationChanges(NamedTuple):
    """rms(z_t - z_0) of each layer against h at one time, with F = alpha (f - f0) as the last."""

    name: str
    """``after one step`` or ``at the end``."""
    found: dict[str, AcrossWidths]
    """The changes by layer, in the order of the network."""


def coordinate_check(runs: pd.DataFrame) -> ReportFigure:
    """Draws rms(z_t - z_0) by layer against h at one sqrt(h) alpha, after the first step and at the end of the run.

    The output layer is drawn as F = alpha (f - f0). In muP no slope differs from 0, at any step (arXiv:2203.03466).

    Raises:
        AnalysisError: the members were not trained by steps of an optimizer, the drift of activations was not observed,
            or fewer than three widths have a common sqrt(h) alpha.
    """
    panels = activation_changes(runs)
    at = panels[-1].found[OUTPUT].at
    known = width_curves(runs, f"{DRIFT}/{layers_of(runs, DRIFT)[0]}")
    with paper_style():
        figure = Figure(figsize=(3.6 * len(panels), 3.6))
        for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axis, panel)
    note = layers_note(panels[-1].found)
    where = common_scale_words(at, "√h α") + (f" ({note})" if note else "")
    caption = (
        f"Change of the preactivations of each layer, and of F, rms over samples and neurons, at {where}: geometric "
        f"means over {seeds_phrase(known)} (bands: {error_words(known)}). Slopes of 0 are muP.{unfinished_note(runs)}"
    )
    findings: dict[str, str] = {}
    for panel in panels:
        findings |= layer_findings(panel.found, f"change {panel.name}")
    table = pd.concat([layer_table(panel.found, panel.name) for panel in panels], ignore_index=True)
    return ReportFigure("coordinate_check", "Coordinate check", caption, figure, table, findings)


def activation_changes(runs: pd.DataFrame) -> list[ActivationChanges]:
    """Returns the changes of activations after the first step, if curves are stored, and at the end of the run.

    They are taken at sqrt(h) alpha = 1, or at the scale next to it that all widths have.

    Raises:
        AnalysisError: the members were not trained by steps of an optimizer, the drift of activations was not observed,
            or fewer than three widths have a common sqrt(h) alpha.
    """
    if "lr" not in runs or not pd.to_numeric(runs["lr"], errors="coerce").notna().any():
        raise AnalysisError("a coordinate check is of mini-batch training, and these members follow a flow")
    layers = layers_of(runs, DRIFT)
    if not layers:
        raise AnalysisError("the drift of activations was not observed: add callbacks/activation.yaml")
    low, high = common_range(width_curves(runs, f"{DRIFT}/{layers[0]}"), "scale")
    at = min(max(1.0, low), high)
    found = [ActivationChanges(name, _found(table, layers, at)) for name, table in _tables(runs, layers).items()]
    if len(found[-1].found[OUTPUT].h) < 3:
        raise AnalysisError("a coordinate check needs three widths at one sqrt(h) alpha: sweep model.network.width")
    return found


def _tables(runs: pd.DataFrame, layers: list[str]) -> dict[str, pd.DataFrame]:
    """Returns the runs with the drifts after the first step, if curves are stored, and with those at the end."""
    columns = [f"{DRIFT}/{layer}" for layer in layers]
    rows = finished(runs)
    tables = {"at the end": rows}
    if hasattr(rows, "curves") and "path" in rows:
        curves = rows.curves.load(columns)
        first = curves[curves["t"] > 0].sort_values("t").groupby("id")[columns].first()
        tables = {"after one step": rows.assign(**{name: rows["id"].map(first[name]) for name in columns}), **tables}
    return tables


def _found(rows: pd.DataFrame, layers: list[str], at: float) -> dict[str, AcrossWidths]:
    last = f"{DRIFT}/{layers[-1]}"
    scaled = rows.assign(**{last: pd.to_numeric(rows[last]) * rows["alpha"].astype(np.float64)})
    found = layers_across_widths(scaled, DRIFT, at, "scale")
    return {OUTPUT if layer == layers[-1] else layer: found[layer] for layer in layers}


def _draw(axis: Axes, panel: ActivationChanges) -> None:
    draw_layers(axis, panel.found)
    axis.set_ylabel(r"rms$\,(z - z_0)$")
    axis.set_title(panel.name)
