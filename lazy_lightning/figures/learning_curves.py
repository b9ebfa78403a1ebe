"""Learning curves of a run: loss, error and weight displacement of every alpha against the flow time t."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext, LogLocator

from lazy_lightning.figures.scale import scale_math, scale_title
from lazy_lightning.figures.stated_scale import scale_value
from lazy_lightning.figures.style import alpha_colors, paper_style


class _Panel(NamedTuple):
    name: str
    label: str
    solid: str
    dashed: str | None
    log: bool
    factor: float = 1.0


_PANELS = (
    _Panel("loss", r"mean loss $\ell(F, y)$", "test/loss", "train/loss", True),
    _Panel("error", "error (%)", "test/error", "train/error", True, 100.0),
    _Panel("displacement", r"$\Vert w - w_0 \Vert / \Vert w_0 \Vert$", "displacement/total", None, True),
    _Panel("kernel_drift", r"$\Vert \Theta - \Theta_0 \Vert / \Vert \Theta_0 \Vert$", "kernel_drift/total", None, True),
    _Panel("path_distance", "rms distance of the paths\nof $F$ and its linearisation", "path_distance/rms", None, True),
)


_MOST_IN_LEGEND = 10
"""Largest number of alphas in the legend; a colour bar shows more."""


def learning_curves(curves: pd.DataFrame, h: float = float("nan")) -> Figure:
    """Draws a panel for each quantity with a line for each member, solid for test and dotted for train.

    Args:
        curves: the table of a run in ``curves.parquet``.
        h: the width, by which the legend states sqrt(h) alpha or gamma, see
            :func:`~lazy_lightning.figures.stated_scale.stated_scale`; NaN for networks without a width.
    """
    panels = _panels(curves)
    with paper_style():
        figure = Figure(figsize=(3.1 * len(panels), 2.6))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, curves, panel)
        _identify_alphas(axes[0], axes[-1], curves, h)
    return figure


def single_panels(curves: pd.DataFrame, h: float = float("nan")) -> dict[str, Figure]:
    """Draws each panel of :func:`learning_curves` as a figure of 800 x 600 pixels.

    TensorBoard scales an image to the width of its card, a third of the window, where the labels of several panels
    side by side are too small to read.

    Args:
        curves: the table of a run in ``curves.parquet``.
        h: the width, as of :func:`learning_curves`.

    Returns:
        The figures by quantity: ``loss``, ``error``, ``displacement``, ``kernel_drift``, ``path_distance``, those that
        are in the table.
    """
    figures = {}
    for panel in _panels(curves):
        with paper_style():
            figure = Figure(figsize=(4.0, 3.0), dpi=200)
            axis = figure.subplots()
            _draw(axis, curves, panel)
            _identify_alphas(axis, axis, curves, h)
        figures[panel.name] = figure
    return figures


def _panels(curves: pd.DataFrame) -> list[_Panel]:
    return [panel for panel in _PANELS if panel.solid in curves]


def _identify_alphas(first: Axes, last: Axes, curves: pd.DataFrame, h: float) -> None:
    """Adds a legend of the alphas to the first axes, or, of many alphas, a colour bar to the last."""
    alphas = sorted(set(curves["alpha"]))
    if len(alphas) > _MOST_IN_LEGEND and min(alphas) > 0:
        _colour_bar(last, alphas, curves, h)
    else:
        _legend(first, curves, h)


def _draw(axis: Axes, curves: pd.DataFrame, panel: _Panel) -> None:
    colors = alpha_colors(curves["alpha"].tolist())
    for _, member in curves[curves["t"] > 0].groupby(["alpha", *_seed_columns(curves)], sort=True):
        alpha = float(member["alpha"].iloc[0])
        moving = member.drop_duplicates("t")
        for column, style in ((panel.solid, "-"), (panel.dashed, ":")):
            if column is not None and column in moving:
                values = panel.factor * moving[column]
                shown = values.where((values > 0) & np.isfinite(values)).dropna()  # NaN if not measured
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
    """Formatter that labels ticks as 30 and 0.1 instead of powers of ten, where matplotlib labels them."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _name(column: str) -> str:
    return column.split("/")[0]


def _colour_bar(axis: Axes, alphas: list[float], curves: pd.DataFrame, h: float) -> None:
    """Draws a colour bar with the colour of each alpha at the position of its scale on a logarithmic axis."""
    by_scale = sorted((scale_value(h, alpha, own="alpha"), color) for alpha, color in alpha_colors(alphas).items())
    values = [value for value, _ in by_scale]
    logs = np.log(values)
    middles = np.exp((logs[1:] + logs[:-1]) / 2)
    boundaries = [values[0] ** 2 / middles[0], *middles, values[-1] ** 2 / middles[-1]]
    mappable = ScalarMappable(BoundaryNorm(boundaries, len(values)), ListedColormap([color for _, color in by_scale]))
    bar = axis.figure.colorbar(mappable, ax=axis, spacing="proportional", label=_bar_label(curves, h))
    bar.ax.set_yscale("log")
    bar.ax.yaxis.set_major_locator(LogLocator())
    bar.ax.yaxis.set_major_formatter(LogFormatterMathtext())
    bar.ax.minorticks_off()


def _bar_label(curves: pd.DataFrame, h: float) -> str:
    return f"{scale_title(h, own='alpha')} ({_members(curves)} each)"


def _seed_columns(curves: pd.DataFrame) -> list[str]:
    return [name for name in ("seed", "data_seed") if name in curves]


def _members(curves: pd.DataFrame) -> str:
    count = len(curves[_seed_columns(curves)].drop_duplicates())
    kind = "member" if "data_seed" in curves else "seed"
    return f"1 {kind}" if count == 1 else f"{count} {kind}s"


def _legend(axis: Axes, curves: pd.DataFrame, h: float) -> None:
    for alpha, color in alpha_colors(curves["alpha"].tolist()).items():
        axis.plot([], [], color=color, label=scale_math(h, alpha, own="alpha"))
    axis.legend(title=f"{_members(curves)} each")
