"""Train loss and test error of a few alphas against t, and against t in units of t1."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.figures.flow_average import FlowCurve, Followed, draw_flow_curve, followed, mean_words
from lazy_lightning.figures.marks import alpha_marks, legend_above, log_axes
from lazy_lightning.figures.quantity import ERROR, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_name, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import has, unfinished_note

TRAIN = Quantity("train/loss", "train loss", r"train loss $\ell(F, y)$", 1.0, "")
_T1 = {
    "t1/half_loss": "the halving of the train loss",
    "t1/kernel_drift": "the drift of the kernel",
    "t1/tangent_departure": "the departure from the linearisation",
}


class _Line(NamedTuple):
    quantity: Quantity
    unit: str | None
    alpha: float
    curve: FlowCurve


def flow_curves(runs: pd.DataFrame) -> ReportFigure:
    """Draws train loss and test error (or loss) of the widest networks against t and t/t1, at up to five alphas.

    Raises:
        AnalysisError: no curves are stored.
    """
    quantities = [TRAIN, performance(runs)]
    chosen = followed(runs, [quantity.column for quantity in quantities])
    units = [None, *[name for name in _T1 if has(chosen.members, name)][:1]]
    lines = _lines(chosen, quantities, units)
    marks = alpha_marks(chosen.alphas)
    with paper_style():
        figure = Figure(figsize=(3.1 * len(units) + 0.4, 4.8))
        axes = figure.subplots(len(quantities), len(units), sharex="col", sharey="row", squeeze=False)
        for line in lines:
            axis = axes[quantities.index(line.quantity), units.index(line.unit)]
            draw_flow_curve(axis, line.curve, marks[line.alpha])
        _finish(axes, quantities, units)
        for alpha, mark in marks.items():
            axes[0, 0].plot([], [], **mark.line_style, label=scale_name(chosen.h, alpha))
        legend_above(figure, axes[0, 0], columns=5, title=chosen.title)
    return ReportFigure(
        "flow_curves",
        "Learning curves",
        _caption(runs, chosen, lines, units),
        figure,
        pd.concat([_rows(line, chosen.h) for line in lines], ignore_index=True),
        _findings(lines, chosen.h),
    )


def _lines(chosen: Followed, quantities: list[Quantity], units: list[str | None]) -> list[_Line]:
    averages = [
        (quantity, unit, alpha, chosen.average(alpha, quantity.column, unit))
        for quantity in quantities
        for unit in units
        for alpha in chosen.alphas
    ]
    return [_Line(q, unit, alpha, curve.times(q.factor)) for q, unit, alpha, curve in averages if curve is not None]


def _finish(axes: NDArray[Any], quantities: list[Quantity], units: list[str | None]) -> None:
    for row, quantity in zip(axes, quantities, strict=True):
        row[0].set_ylabel(quantity.label)
        for axis in row:
            log_axes(axis, y=quantity is not ERROR)
    for axis, unit in zip(axes[-1], units, strict=True):
        axis.set_xlabel("$t$" if unit is None else "$t / t_1$")


def _caption(runs: pd.DataFrame, chosen: Followed, lines: list[_Line], units: list[str | None]) -> str:
    unit = units[-1]
    scaled = "" if unit is None else f" Right: each member's t over its own t1, by {_T1[unit]}."
    return (
        f"Learning curves of {chosen.description}, {mean_words([line.curve for line in lines])}; a "
        f"member that has stopped keeps its last value, and a marker is at the end of the last member."
        f"{scaled}{unfinished_note(runs)}"
    )


def _rows(line: _Line, h: float) -> pd.DataFrame:
    who = {"h": h, "alpha": line.alpha, "sqrt_h_alpha": h**0.5 * line.alpha, "seeds": line.curve.seeds}
    time = {"quantity": line.quantity.column, "unit": line.unit or "1", "t": line.curve.t}
    return pd.DataFrame({**who, **time, **line.curve.band._asdict()})


def _findings(lines: list[_Line], h: float) -> dict[str, str]:
    """Returns the values and times at the ends of the curves."""
    return {
        f"{line.quantity.name} at the end, {scale_words(h, line.alpha)}": (
            f"{line.curve.band.mean[-1]:.3g}{line.quantity.unit} at t = {line.curve.t[-1]:.3g}"
        )
        for line in lines
        if line.unit is None
    }
