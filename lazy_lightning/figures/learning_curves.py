"""Learning curves against the flow time t: loss, error and weight displacement of every alpha."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lazy_lightning.figures.style import alpha_colors, paper_style


class _Panel(NamedTuple):
    label: str
    solid: str
    dashed: str | None
    log: bool
    factor: float = 1.0


_PANELS = (
    _Panel(r"mean loss $\ell(F, y)$", "test/loss", "train/loss", True),
    _Panel("error (%)", "test/error", "train/error", True, 100.0),
    _Panel(r"$\Vert w - w_0 \Vert / \Vert w_0 \Vert$", "displacement/total", None, True),
    _Panel(r"$\Vert \Theta - \Theta_0 \Vert / \Vert \Theta_0 \Vert$", "kernel_drift/total", None, True),
    _Panel("rms distance of the paths\nof $F$ and its linearisation", "path_distance/rms", None, True),
)


def learning_curves(curves: pd.DataFrame) -> Figure:
    """One panel a quantity; a line a member; test solid and train dotted.

    Args:
        curves: the table of a run, as in ``curves.parquet``.
    """
    panels = [panel for panel in _PANELS if panel.solid in curves]
    with paper_style():
        figure = Figure(figsize=(3.1 * len(panels), 2.6))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, curves, panel)
        _legend(axes[0], curves)
    return figure


def _draw(axis: Axes, curves: pd.DataFrame, panel: _Panel) -> None:
    colors = alpha_colors(curves["alpha"].tolist())
    for _, member in curves[curves["t"] > 0].groupby(["alpha", "seed"], sort=True):
        alpha = float(member["alpha"].iloc[0])
        moving = member.drop_duplicates("t")
        for column, style in ((panel.solid, "-"), (panel.dashed, ":")):
            if column is not None and column in moving:
                values = panel.factor * moving[column]
                shown = values.where((values > 0) & np.isfinite(values)).dropna()  # not all is looked at always
                axis.plot(moving["t"].loc[shown.index], shown, style, color=colors[alpha], lw=1.0, alpha=0.75)
        axis.plot(moving["t"].iloc[-1:], panel.factor * moving[panel.solid].iloc[-1:], "o", color=colors[alpha])
    axis.set_xscale("log")
    if panel.log and np.isfinite(axis.dataLim.minposy):  # matplotlib fails on a log axis without a positive number
        axis.set_yscale("log")
        if panel.factor != 1.0:
            axis.yaxis.set_major_formatter(_Percents())
            axis.yaxis.set_minor_formatter(_Percents(minor_thresholds=(1.5, 0.5)))
    axis.set_xlabel("flow time $t$")
    names = "" if panel.dashed is None else f"\n{_name(panel.solid)} —   {_name(panel.dashed)} ···"
    axis.set_title(panel.label + names)


class _Percents(LogFormatter):
    """30 and 0.1, not powers of ten, of those ticks that matplotlib would label."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _name(column: str) -> str:
    return column.split("/")[0]


def _legend(axis: Axes, curves: pd.DataFrame) -> None:
    for alpha, color in alpha_colors(curves["alpha"].tolist()).items():
        axis.plot([], [], color=color, label=rf"$\alpha = {alpha:g}$")
    seeds = curves["seed"].nunique()
    axis.legend(title="1 seed each" if seeds == 1 else f"{seeds} seeds each")
