"""Draws work against precision from the JSON of ``integrators.py``.

    python benchmarks/work_precision_figure.py benchmarks/results/work_precision_cpu.json docs/performance
        [--data digits mnist cifar] [--stem work_precision]

writes ``work_precision_evaluations.png``, ``work_precision_time.png`` and ``work_precision_drift.png`` into the folder.
One row of panels a data set at its largest n, one column a flow. Curves are labelled in the first row.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from lazy_lightning.figures.style import paper_style, save

COLUMNS = (("network", 100.0), ("network", 1.0), ("network", 0.01), ("kernel", 1.0))
NAMES = {"digits": "digits", "mnist": "MNIST", "cifar": "CIFAR-10"}
STYLES: dict[str, dict[str, Any]] = {
    "euler": {"color": "#555555", "marker": "s", "ls": "-"},
    "explicit": {"color": "#0072b2", "marker": "o", "ls": "-"},
    "implicit": {"color": "#d55e00", "marker": "^", "ls": "-"},
    "auto": {"color": "#009e73", "marker": "D", "ls": "-"},
    "scipy RK45": {"color": "#56b4e9", "marker": "o", "ls": ":", "mfc": "white"},
    "scipy BDF": {"color": "#cc79a7", "marker": "^", "ls": ":", "mfc": "white"},
    "scipy LSODA": {"color": "#e69f00", "marker": "D", "ls": ":", "mfc": "white"},
}
"""Colours that differ without colour vision too; scipy's curves are dotted, with open marks."""
FIGURES = {
    "evaluations": ("evaluations", "error", "evaluations", "rms error of F, test"),
    "time": ("cpu", "error", "time on one thread (s)", "rms error of F, test"),
    "drift": ("evaluations", "error_drift", "evaluations", "relative error of the drift"),
}
Row = dict[str, Any]


def panel_rows(rows: list[Row], data: str, flow: str, alpha: float) -> list[Row]:
    """The runs of one panel, at the largest n at which this flow has been measured by all integrators."""
    own = [r for r in rows if (r["flow"], r["data"], r["alpha"]) == (flow, data, alpha)]
    complete = [n for n in {r["n"] for r in own} if {"euler", "auto"} <= {r["integrator"] for r in own if r["n"] == n}]
    return [r for r in own if complete and r["n"] == max(complete)]


def title(flow: str, alpha: float, rows: list[Row]) -> str:
    """The flow, with the drift of the kernel at its end."""
    if flow == "kernel":
        return "frozen kernel"
    drift = next((r["drift"] for r in rows if r["integrator"] == "truth"), math.nan)
    return f"α = {alpha:g}, drift {drift:.2g}"


def draw_panel(axis: Axes, rows: list[Row], cost: str, error: str) -> dict[str, tuple[list[float], list[float]]]:
    """One curve an integrator; returns their points."""
    curves = {}
    for name, style in STYLES.items():
        own = [r for r in rows if r["integrator"] == name and r.get(error)]
        if own:
            x, y = [r[cost] for r in own], [r[error] for r in own]
            axis.loglog(x, y, **style)
            curves[name] = (x, y)
    axis.yaxis.set_major_locator(LogLocator(numticks=20))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(0.12)
    return curves


def along(corners: NDArray[Any]) -> NDArray[Any]:
    """Points on the line through corners (k, 2), ten a piece."""
    shares = np.linspace(0, 1, 11)[:, None]
    pieces = [a + shares * (b - a) for a, b in pairwise(corners)]
    return np.concatenate([corners, *pieces])


def label_curves(axis: Axes, curves: dict[str, tuple[list[float], list[float]]]) -> None:
    """Writes each name beside its curve where it overlaps no other name and as little of the curves as possible."""
    axis.figure.canvas.draw()
    to_pixels, pixel = axis.transData.transform, axis.figure.dpi / 72
    lines = {name: along(to_pixels(np.transpose(points))) for name, points in curves.items()}
    everything = np.concatenate(list(lines.values()))
    frame, placed = axis.get_window_extent(), list[Bbox]()
    for name, own in lines.items():
        text = axis.text(0, 0, _shown(name), fontsize=7, color=STYLES[name]["color"], transform=None, va="bottom")
        size = text.get_window_extent()
        found = (math.inf, Bbox.null())
        for x, y in own:
            for away in (5 * pixel, 9 * pixel):
                for left in (x + away, x - away - size.width, x - size.width / 2):
                    for low in (y + away, y - away - size.height, y - size.height / 2):
                        box = Bbox.from_bounds(left, low, size.width, size.height)
                        cost = _cost(box.padded(2 * pixel), everything, placed, frame) + 0.1 * away
                        found = min(found, (cost, box), key=lambda each: each[0])
        placed.append(found[1].padded(pixel))
        text.set_transform(axis.transAxes)
        text.set_position(axis.transAxes.inverted().transform((found[1].x0, found[1].y0)))


def _shown(name: str) -> str:
    return name.removeprefix("scipy ")


def _cost(box: Bbox, points: NDArray[Any], placed: list[Bbox], frame: Bbox) -> float:
    """What a place for a label hides: points on curves, other labels, and what lies outside of the panel."""
    inside = (points > box.min).all(1) & (points < box.max).all(1)
    outside = bool((box.min < frame.min).any() or (box.max > frame.max).any())
    return 10.0 * int(inside.sum()) + 1000.0 * sum(box.overlaps(other) for other in placed) + 500.0 * outside


def draw(rows: list[Row], which: str) -> Figure:
    """One of the figures."""
    cost, error, x_label, y_label = FIGURES[which]
    columns = [each for each in COLUMNS if not (which == "drift" and each[0] == "kernel")]
    sets = [name for name in NAMES if any(panel_rows(rows, name, *each) for each in columns)]
    figure = Figure(figsize=(2.3 * len(columns), 2.3 * len(sets)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(sets), len(columns), sharey=True, squeeze=False)
    drawn = {}
    for line, data in enumerate(sets):
        for column, (flow, alpha) in enumerate(columns):
            axis, own = axes[line][column], panel_rows(rows, data, flow, alpha)
            if not own:
                axis.set_axis_off()
                continue
            drawn[line, column] = draw_panel(axis, own, cost, error)
            axis.set_title(f"{NAMES[data]}, n = {own[0]['n']}\n{title(flow, alpha, own)}", fontsize=8)
        axes[line][0].set_ylabel(y_label)
    for column in range(len(columns)):
        lines = [line for line in range(len(sets)) if (line, column) in drawn]
        if lines:
            axes[lines[-1]][column].set_xlabel(x_label)
            label_curves(axes[lines[0]][column], drawn[lines[0], column])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", choices=list(NAMES), default=list(NAMES), help="these sets alone")
    parser.add_argument("--stem", default="work_precision", help="how the files' names begin")
    options = parser.parse_args()
    mpl.use("Agg")
    rows = [row for row in json.loads(options.file.read_text())["rows"] if row["data"] in options.data]
    options.folder.mkdir(parents=True, exist_ok=True)
    for which in FIGURES:
        with paper_style():
            save(draw(rows, which), options.folder / f"{options.stem}_{which}", (".png",))


if __name__ == "__main__":
    main()
