"""Marks of the curves of a sweep: a colour, marker and line style for each width, and bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.figures.band import Band
from lazy_lightning.figures.style import alpha_colors

# The palette of Okabe and Ito, which is distinguishable with any kind of colour vision and has different lightness.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))


class Mark(NamedTuple):
    """Colour, marker and line style of one width."""

    color: str
    marker: str
    line: Any

    @property
    def line_style(self) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot`` for line and marker."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


def width_marks(widths: Sequence[float]) -> dict[float, Mark]:
    """Returns the marks of widths in their order; NaN stands for networks without a width."""
    ordered = sorted(set(widths), key=lambda h: (h != h, h))
    return {
        h: Mark(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i, h in enumerate(ordered)
    }


def offset_marks(count: int, start: int) -> list[Mark]:
    """Returns ``count`` marks from ``start`` on, cyclically, for curves that are not of a width."""
    return [
        Mark(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i in range(start, start + count)
    ]


def width_label(h: float) -> str:
    """Returns the label of a width in a legend, such as ``h = 100``."""
    return "network" if h != h else f"$h = {h:g}$"


def draw_band(axis: Axes, x: NDArray[np.float64], band: Band, mark: Mark, label: str | None = None) -> None:
    """Draws the mean and the band of its error, which may be asymmetric on a log axis."""
    axis.plot(x, band.mean, **mark.line_style, label=label)
    shown = np.isfinite(band.low) & np.isfinite(band.high)
    axis.fill_between(x[shown], band.low[shown], band.high[shown], color=mark.color, alpha=0.15, lw=0)


def draw_seeds(axis: Axes, x: NDArray[np.float64], values: NDArray[np.float64], mark: Mark) -> None:
    """Draws the value of each seed, (k, s), as a small pale dot."""
    points, seeds = np.nonzero(np.isfinite(values))
    axis.plot(x[points], values[points, seeds], ".", color=mark.color, markersize=3.5, alpha=0.45, mew=0)


def draw_average(axis: Axes, x: NDArray[np.float64], y: NDArray[np.float64], mark: Mark) -> None:
    """Draws a quantity of the ensemble average as a dashed line with open markers."""
    axis.plot(x, y, **mark._replace(line="--").line_style, mfc="white", lw=1.0)


def explain_average(axis: Axes) -> None:
    """Adds the entry of :func:`draw_average` to the legend."""
    axis.plot([], [], "--", color="0.3", marker="o", mfc="white", lw=1.0, label="ensemble average")


def alpha_marks(alphas: Sequence[float]) -> dict[float, Mark]:
    """Returns marks from feature (dark) to lazy (light), with different markers and line styles."""
    colors = alpha_colors(alphas)
    return {
        a: Mark(color, _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i, (a, color) in enumerate(colors.items())
    }


def number(value: float, digits: int = 2) -> str:
    """Formats a number in mathtext, for the label of a curve.

    >>> number(0.0316), number(300.0), number(3.162e-5), number(1e6)
    ('0.032', '300', '3.2 \\\\times 10^{-5}', '10^{6}')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        shown = f"{value:.{digits}g}"
        return f"{float(shown):g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return power if float(mantissa) == 1 else rf"{float(mantissa):g} \times {power}"


def legend_above(figure: Figure, axis: Axes, columns: int = 4, title: str | None = None) -> None:
    """Draws the legend of an axis above the figure, where it hides no curve, with at most ``columns`` columns."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        rows = -(-len(handles) // columns)
        figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(handles) // rows), title=title)


def plain(value: float, digits: int = 3) -> str:
    """Formats a number in plain text, for a caption.

    >>> plain(1000.0000001), plain(0.0031623), plain(1.8257e-4)
    ('1000', '0.00316', '0.000183')
    """
    return f"{float(f'{value:.{digits}g}'):g}"


def slope_label(slope: float, error: float) -> str:
    """Formats a slope to the first digit of its error, with two to four decimals.

    >>> slope_label(-0.9962, 0.0135), slope_label(-1.00014, 0.00019), slope_label(-1.0, 0.0)
    ('slope −1.00 ± 0.01', 'slope −1.0001 ± 0.0002', 'slope −1.0000 ± 0.0000')
    """
    decimals = 2
    while decimals < 4 and round(error, decimals) == 0:
        decimals += 1
    return f"slope {slope:.{decimals}f} ± {error:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def headroom(axis: Axes, share: float) -> None:
    """Leaves the upper ``share`` of a logarithmic axis free for a legend."""
    if axis.get_yscale() == "log":
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** (share / (1 - share)))


def log_axes(axis: Axes, x: bool = True, y: bool = True) -> None:
    """Sets logarithmic axes if they have a positive value, because matplotlib fails on a log axis without one."""
    if x and np.isfinite(axis.dataLim.minposx):
        axis.set_xscale("log")
        if axis.dataLim.x1 < 1.01 * axis.dataLim.minposx:  # one alpha, whose ticks would overlap
            axis.set_xlim(axis.dataLim.minposx / 20, axis.dataLim.x1 * 20)
    if y and np.isfinite(axis.dataLim.minposy):
        axis.set_yscale("log")
