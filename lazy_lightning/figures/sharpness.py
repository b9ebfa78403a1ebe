"""Sharpness of the loss against the flow time, beside the limit of stability of the steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.flow_average import FlowCurve, Followed, draw_flow_curve, followed, mean_words
from lazy_lightning.figures.marks import alpha_marks, legend_above, log_axes
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_name, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import unfinished_note

LARGEST = "sharpness/largest"
LIMIT = "sharpness/limit"


class _Pair(NamedTuple):
    largest: FlowCurve
    limit: FlowCurve | None
    """None where the optimizer has no limit in terms of the curvature."""


def sharpness(runs: pd.DataFrame) -> ReportFigure:
    """Draws the largest eigenvalue of the Hessian (solid) and the limit 2/dt (dotted) against t, at up to five alphas.

    Raises:
        AnalysisError: the sharpness was not observed, or is nowhere positive.
    """
    chosen = followed(runs, [LARGEST])
    pairs = _pairs(chosen)
    if not any((pair.largest.band.mean > 0).any() for pair in pairs.values()):
        raise AnalysisError("no Hessian has a positive eigenvalue: check whether the networks were trained")
    marks = alpha_marks(chosen.alphas)
    with paper_style():
        figure = Figure(figsize=(4.2, 3.5))
        axis = figure.subplots()
        for alpha, pair in pairs.items():
            draw_flow_curve(axis, pair.largest, marks[alpha])
            if pair.limit is not None:
                axis.plot(pair.limit.t, pair.limit.band.mean, color=marks[alpha].color, ls=":")
            axis.plot([], [], **marks[alpha].line_style, label=scale_name(chosen.h, alpha))
        axis.set(xlabel="$t$", ylabel=r"$\lambda_\mathrm{max}$ of the Hessian,  $2/dt$ ···")
        log_axes(axis)
        legend_above(figure, axis, columns=3, title=chosen.title)
    caption = (
        f"Largest eigenvalue of the Hessian of the training loss: {chosen.description}, "
        f"{mean_words([pair.largest for pair in pairs.values()])}. Dotted: the limit of stability of the steps, 2/dt "
        "for Euler's rule and SGD without momentum, which lies above the curve where the steps are "
        f"stable.{unfinished_note(runs)}"
    )
    table = pd.concat([_rows(chosen.h, alpha, pair) for alpha, pair in pairs.items()], ignore_index=True)
    return ReportFigure("sharpness", "Sharpness", caption, figure, table, _findings(chosen.h, pairs))


def _pairs(chosen: Followed) -> dict[float, _Pair]:
    limits = chosen.members.curves.load([LIMIT])
    whole = chosen._replace(curves=limits)
    found = {alpha: (chosen.average(alpha, LARGEST), whole.average(alpha, LIMIT)) for alpha in chosen.alphas}
    return {alpha: _Pair(largest, limit) for alpha, (largest, limit) in found.items() if largest is not None}


def _rows(h: float, alpha: float, pair: _Pair) -> pd.DataFrame:
    parts = []
    for name, curve in (("largest", pair.largest), ("limit", pair.limit)):
        if curve is not None:
            who = {"h": h, "alpha": alpha, "sqrt_h_alpha": h**0.5 * alpha, "seeds": curve.seeds, "quantity": name}
            parts.append(pd.DataFrame({**who, "t": curve.t, **curve.band._asdict()}))
    return pd.concat(parts, ignore_index=True)


def _findings(h: float, pairs: dict[float, _Pair]) -> dict[str, str]:
    """Returns the sharpness at both ends of training, and how near it comes to the limit."""
    findings = {}
    for alpha, (largest, limit) in pairs.items():
        start, end = largest.band.mean[[0, -1]]
        near = ""
        if limit is not None:
            share = np.nanmax(largest.band.mean / np.interp(np.log(largest.t), np.log(limit.t), limit.band.mean))
            near = f", at most {share:.2g} of the limit"
        findings[f"largest eigenvalue, {scale_words(h, alpha)}"] = f"{start:.3g} at first, {end:.3g} at the end{near}"
    return findings
