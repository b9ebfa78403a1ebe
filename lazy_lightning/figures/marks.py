"""How a sweep is drawn: one colour, marker and line a width, so that it is read without colour; bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

# Of Okabe and Ito's palette: told apart with any kind of colour vision, and of different lightness.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))

SCALE_LABEL = r"$\sqrt{h}\,\alpha$"
ALPHA_LABEL = r"$\alpha$"


class Mark(NamedTuple):
    """Of one width."""

    color: str
    marker: str
    line: Any

    @property
    def line_style(self) -> dict[str, Any]:
        """For ``Axes.plot``: line and marker."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


def width_marks(widths: Sequence[float]) -> dict[float, Mark]:
    """In the order of h; NaN (a network without a width) is one too."""
    ordered = sorted(set(widths), key=lambda h: (h != h, h))
    return {
        h: Mark(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i, h in enumerate(ordered)
    }


def width_label(h: float) -> str:
    """``h = 100``."""
    return "network" if h != h else f"$h = {h:g}$"


def draw_with_band(
    axis: Axes,
    x: NDArray[np.float64],
    mean: NDArray[np.float64],
    error: NDArray[np.float64],
    mark: Mark,
    label: str | None = None,
) -> None:
    """The mean over seeds, and a band of one standard error to both sides."""
    axis.plot(x, mean, **mark.line_style, label=label)
    shown = np.isfinite(error)
    axis.fill_between(x[shown], (mean - error)[shown], (mean + error)[shown], color=mark.color, alpha=0.15, lw=0)


def log_axes(axis: Axes, x: bool = True, y: bool = True) -> None:
    """Logarithmic where there is a positive number to show: matplotlib fails on a log axis without one."""
    if x and np.isfinite(axis.dataLim.minposx):
        axis.set_xscale("log")
    if y and np.isfinite(axis.dataLim.minposy):
        axis.set_yscale("log")
