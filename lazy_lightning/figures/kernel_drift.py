"""The order parameter, the relative change of the tangent kernel over training, against sqrt(h) alpha."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.analysis import Curve, PowerLaw, collapse_exponent, collapse_quality
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.asymptotic_regions import (
    DRIFT,
    Region,
    clear_shift,
    draw_guide,
    feature_region,
    fitted,
    lazy_region,
)
from lazy_lightning.figures.marks import draw_band, draw_seeds, legend_above, log_axes, width_label, width_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    errors_phrase,
    named_width,
    scale_label,
    seeds_phrase,
    unfinished_note,
    width_curves,
)

LEVEL = 0.5
"""Level of the drift that defines alpha*."""
_SIDES: dict[str, Callable[[NDArray[np.float64]], Region]] = {"lazy": lazy_region, "feature": feature_region}
_IN_CAPTION = 3
"""Number of widths, the largest, whose slopes are in the caption; the findings contain all."""

_Laws = dict[str, list[tuple[WidthCurve, Region, PowerLaw]]]


def kernel_drift(runs: pd.DataFrame) -> ReportFigure:
    """Draws ‖Theta_end - Theta_0‖/‖Theta_0‖ against sqrt(h) alpha for each width, with the slopes of both regimes.

    Slopes are fitted to points with a drift below 0.01 or 0.1 (lazy), and above 100, 10 or 1 (feature), with the first
    of these levels that leaves three points of a width. The thin lines are the slopes of the widest network.

    Raises:
        AnalysisError: the drift was not observed, or is 0 everywhere.
    """
    curves = [curve.positive() for curve in width_curves(runs, DRIFT) if (curve.values > 0).any()]
    if not curves:
        raise AnalysisError("no kernel has moved, the drift is 0 everywhere: check whether the networks were trained")
    laws = {name: _laws(curves, name) for name in _SIDES}
    with paper_style():
        figure = Figure(figsize=(4.2, 3.5))
        axis = figure.subplots()
        _draw(axis, curves)
        for name, found in laws.items():
            _draw_slope(axis, found, curves, above=name == "feature")
        log_axes(axis)
        legend_above(figure, axis, columns=3)
    caption = (
        f"Relative change of the tangent kernel over training, geometric mean of {seeds_phrase(curves)} ("
        f"{errors_phrase(curves)}; dotted: {LEVEL}, where α* is read; thin lines: slopes of the widest). "
        f"{' '.join(_sentence(name, found) for name, found in laws.items())}{unfinished_note(runs)}"
    )
    findings = _slopes(laws) | _collapse(curves)
    return ReportFigure("kernel_drift", "Kernel drift", caption, figure, table(curves), findings)


def table(curves: Sequence[WidthCurve]) -> pd.DataFrame:
    """Returns the geometric means with intervals of one standard error."""
    return pd.concat([curve.long(**curve.log_band()._asdict()) for curve in curves], ignore_index=True)


def _draw(axis: Axes, curves: Sequence[WidthCurve]) -> None:
    marks = width_marks([curve.h for curve in curves])
    axis.axhline(LEVEL, color="0.5", lw=0.8, ls=":")
    for curve in curves:
        draw_seeds(axis, curve.scale, curve.values, marks[curve.h])
        draw_band(axis, curve.scale, curve.log_band(), marks[curve.h], width_label(curve.h))
    axis.set_xlabel(scale_label(curves))
    axis.set_ylabel(r"$\Vert \Theta_\mathrm{end} - \Theta_0 \Vert\,/\,\Vert \Theta_0 \Vert$")


def _laws(curves: Sequence[WidthCurve], name: str) -> list[tuple[WidthCurve, Region, PowerLaw]]:
    found = []
    for curve in curves:
        region = _SIDES[name](curve.log_band().mean)
        law = fitted(curve, region.keep)
        if law is not None:
            found.append((curve, region, law))
    return found


def _draw_slope(
    axis: Axes, laws: list[tuple[WidthCurve, Region, PowerLaw]], curves: Sequence[WidthCurve], above: bool
) -> None:
    """Draws the slope of the widest network, because the curves collapse, on the side without curves."""
    if laws:
        curve, region, law = laws[-1]
        x = curve.scale[region.keep]
        draw_guide(axis, law, x, clear_shift(law, x, curves, above))


def _slopes(laws: _Laws) -> dict[str, str]:
    return {
        f"slope, {name} side, {named_width(curve.h)}": f"{law} ({law.points} points, {region.description})"
        for name, found in laws.items()
        for curve, region, law in found
    }


def _sentence(name: str, laws: list[tuple[WidthCurve, Region, PowerLaw]]) -> str:
    if not laws:
        return f"Too few points on the {name} side for a slope."
    description = ", ".join(
        f"{law} ({named_width(curve.h)}, {region.description})" for curve, region, law in laws[-_IN_CAPTION:]
    )
    return f"Slope on the {name} side: {description}."


def _collapse(curves: Sequence[WidthCurve]) -> dict[str, str]:
    """Describes the collapse of the widths; empty if there are too few widths or seeds."""
    measured = [Curve(curve.h, curve.alpha, curve.values) for curve in curves if curve.h == curve.h]
    findings: dict[str, str] = {}
    if len(measured) < 2:
        return findings
    try:
        findings["collapse on sqrt(h) alpha, (difference/error)^2"] = str(collapse_quality(measured, exponent=0.5))
        best = collapse_exponent(measured)
        findings["best collapse on h^a alpha, a"] = f"{best} (quality {best.quality:.2g})"
    except AnalysisError as reason:
        findings.setdefault("collapse", f"not measured: {reason}")
    return findings
