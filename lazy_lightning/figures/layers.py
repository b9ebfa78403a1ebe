"""Quantities observed by layer: the names of the layers, their marks, and their slopes against h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazy_lightning.figures.across_widths import AcrossWidths, By, across_widths, interpolated_note
from lazy_lightning.figures.marks import Mark, draw_band, headroom, log_axes, offset_marks, slope_label
from lazy_lightning.figures.sweep_table import has, width_curves

_MOST_SHOWN = 5
_A_LINE = 0.085
"""Height of a line of a legend, as a share of the height of a panel."""


def layers_of(runs: pd.DataFrame, quantity: str) -> list[str]:
    """Returns the layers of the observed columns ``quantity/LAYER``, in the order of the network.

    >>> runs = pd.DataFrame({"status": ["finished"], "model": "network", "dw_mean/b": 1.0, "dw_mean/a": 1.0})
    >>> layers_of(runs, "dw_mean")
    ['b', 'a']
    """
    start = f"{quantity}/"
    names = [column.removeprefix(start) for column in runs.columns if column.startswith(start)]
    return [name for name in names if name != "total" and has(runs, start + name)]


def some_of(layers: Sequence[str]) -> list[str]:
    """Selects at most five layers from the first to the last, because more marks are hard to distinguish."""
    picked = np.linspace(0, len(layers) - 1, min(len(layers), _MOST_SHOWN)).round().astype(int)
    return [layers[i] for i in picked.tolist()]


def layers_across_widths(runs: pd.DataFrame, quantity: str, at: float, by: By) -> dict[str, AcrossWidths]:
    """Returns ``quantity`` of each layer against h."""
    return {
        layer: across_widths(width_curves(runs, f"{quantity}/{layer}"), at, by) for layer in layers_of(runs, quantity)
    }


def layer_marks(layers: Sequence[str]) -> dict[str, Mark]:
    """Returns marks that differ from those of the first widths, which may be in the next panel."""
    return dict(zip(layers, offset_marks(len(layers), 3), strict=True))


def draw_layers(axis: Axes, found: Mapping[str, AcrossWidths]) -> None:
    """Draws each layer against h, with its slope in the legend."""
    marks = layer_marks(some_of(list(found)))
    for layer, mark in marks.items():
        law = found[layer].law
        slope = "" if law is None else f": {slope_label(law.slope, law.error)}"
        draw_band(axis, found[layer].h, found[layer].band, mark, f"{layer}{slope}")
    log_axes(axis)
    tick_widths(axis, [float(h) for across in found.values() for h in across.h])
    headroom(axis, _A_LINE * len(marks))
    axis.legend(loc="upper left")


def tick_widths(axis: Axes, widths: Sequence[float]) -> None:
    """Sets ticks only at the widths of the sweep."""
    ticks = sorted(set(widths))
    axis.set_xticks(ticks, [f"{h:g}" for h in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("$h$")


def layer_findings(found: Mapping[str, AcrossWidths], quantity: str) -> dict[str, str]:
    """Returns the slope in h of each layer with enough points."""
    laws = {layer: across.law for layer, across in found.items()}
    note = layers_note(found)
    return {
        f"{quantity} against h, {layer}": f"{law} ({note})" if note else str(law)
        for layer, law in laws.items()
        if law is not None
    }


def layers_note(found: Mapping[str, AcrossWidths]) -> str:
    """Describes the widths at which the layers' values are interpolated; empty if there are none."""
    if not found:
        return ""
    across = next(iter(found.values()))
    return interpolated_note(across.h, across.trained)


def layer_table(found: Mapping[str, AcrossWidths], quantity: str) -> pd.DataFrame:
    """Returns all drawn values in long form."""
    return pd.concat(
        [across.long(quantity=quantity, layer=layer) for layer, across in found.items()], ignore_index=True
    )
