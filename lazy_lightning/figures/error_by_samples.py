"""Learning curves: the test error against the number n of training samples, with its exponent, by h and alpha."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.analysis import PowerLaw, power_law
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.ensembles import ensemble_curve
from lazy_lightning.figures.layers import tick_widths
from lazy_lightning.figures.marks import (
    Mark,
    draw_average,
    draw_band,
    draw_seeds,
    explain_average,
    legend_above,
    offset_marks,
    plain,
)
from lazy_lightning.figures.quantity import ERROR, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_math, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    KERNEL_AT_INIT,
    NETWORK,
    WidthCurve,
    errors_phrase,
    finished,
    has,
    named_width,
    of_width,
    seeds_phrase,
    sorted_widths,
    unfinished_note,
    width_curves,
)

SAMPLES = "data.n_train"
"""The key of the number of training samples."""


class SampleCurve(NamedTuple):
    """A quantity of one width and alpha against n."""

    name: str
    """Description such as ``h = 100, sqrt(h) alpha = 0.1``."""
    label: str
    """The same in mathtext."""
    alpha: float
    curve: WidthCurve
    """The curve, whose attribute ``alpha`` contains n."""
    ensemble: WidthCurve | None
    """That of the average over the seeds of the weights."""

    @property
    def law(self) -> PowerLaw | None:
        """The power law in n, None for fewer than three n or values of 0."""
        try:
            return power_law(self.curve.alpha, self.curve.values)
        except AnalysisError:
            return None


def error_by_samples(runs: pd.DataFrame) -> ReportFigure:
    """Draws the test error (or loss, for regression) against n, at the smallest and largest alpha of each width.

    Raises:
        AnalysisError: fewer than two n were trained, or no test error was observed.
    """
    quantity = performance(runs)
    curves = list(sample_curves(runs, quantity))
    with paper_style():
        figure = Figure(figsize=(4.6, 3.8))
        axis = figure.subplots()
        for curve, mark in zip(curves, offset_marks(len(curves), 0), strict=True):
            _draw(axis, curve, mark, quantity)
        if any(curve.ensemble is not None for curve in curves):
            explain_average(axis)
        axis.set(ylabel=quantity.label, xscale="log", yscale="log")
        tick_widths(axis, [float(n) for curve in curves for n in curve.curve.alpha])
        axis.set_xlabel("training samples $n$")
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter(lambda value, _: f"{value:g}")
        legend_above(figure, axis, columns=2)
    members = [curve.curve for curve in curves]
    caption = (
        f"{quantity.name.capitalize()} against the number n of training samples: mean of {seeds_phrase(members)} "
        f"({errors_phrase(members)}). Dashed: the average over the weights of one training set."
        f"{unfinished_note(runs)}"
    )
    title = f"{quantity.name.capitalize()} by training samples"
    return ReportFigure("error_by_samples", title, caption, figure, _table(curves, quantity), _findings(curves))


def sample_curves(runs: pd.DataFrame, quantity: Quantity) -> Iterator[SampleCurve]:
    """Yields the curves of networks at the ends of alpha for each width, and of kernels at initialisation.

    Raises:
        AnalysisError: no width has two n.
    """
    found = False
    for model in (NETWORK, KERNEL_AT_INIT):
        if not has(runs, quantity.column, model):
            continue
        rows = finished(runs, model)
        for h in sorted_widths(rows):
            of_h = of_width(rows, h)
            alphas = common_alphas(of_h)
            for alpha in alphas if model == NETWORK else alphas[:1]:
                curve = _curve(of_h[of_h["alpha"] == alpha], h, alpha, model, quantity)
                if len(curve.curve.alpha) > 1:
                    found = True
                    yield curve
    if not found:
        raise AnalysisError(f"no width was trained at two {SAMPLES}: sweep {SAMPLES}, for example [100, 300, 1000]")


def common_alphas(rows: pd.DataFrame) -> list[float]:
    """Returns the smallest and the largest of the alphas with most n, ascending; one if they are equal."""
    counts = rows.groupby("alpha")[SAMPLES].nunique()
    ends = counts[counts == counts.max()].index.astype(float)
    return sorted({float(ends.min()), float(ends.max())})


def against_samples(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with n in the column ``alpha``, for functions that draw against alpha."""
    return rows.assign(alpha=pd.to_numeric(rows[SAMPLES]).astype(float))


def _curve(rows: pd.DataFrame, h: float, alpha: float, model: str, quantity: Quantity) -> SampleCurve:
    moved = against_samples(rows)
    (curve,) = width_curves(moved, quantity.column, model)
    ensemble = ensemble_curve(moved, h) if quantity is ERROR and model == NETWORK else None
    name = f"{named_width(h)}, {scale_words(h, alpha)}" if model == NETWORK else f"{named_width(h)}, {model}"
    label = f"{named_width(h)}, {scale_math(h, alpha)}" if model == NETWORK else name
    return SampleCurve(name, label, alpha, curve, ensemble)


def _draw(axis: Axes, curve: SampleCurve, mark: Mark, quantity: Quantity) -> None:
    line, c = curve.curve, quantity.factor
    law = curve.law
    slope = "" if law is None else f": $n^{{{law.slope:.2f}}}$"
    solid = mark._replace(line="-")
    draw_seeds(axis, line.alpha, c * line.values, solid)
    draw_band(axis, line.alpha, line.band(c), solid, f"{curve.label}{slope}")
    if curve.ensemble is not None:
        draw_average(axis, curve.ensemble.alpha, c * curve.ensemble.values[:, 0], mark)


def _table(curves: Sequence[SampleCurve], quantity: Quantity) -> pd.DataFrame:
    parts = []
    for curve in curves:
        for kind, line in (("members", curve.curve), ("ensemble", curve.ensemble)):
            if line is not None:
                band = line.band(quantity.factor)
                who = {"curve": curve.name, "h": line.h, "alpha": curve.alpha, "n": line.alpha, "of": kind}
                parts.append(pd.DataFrame({**who, "draws": line.counts, **band._asdict()}))
    return pd.concat(parts, ignore_index=True)


def _findings(curves: Sequence[SampleCurve]) -> dict[str, str]:
    findings = {}
    for curve in curves:
        law, n = curve.law, curve.curve.alpha
        span = f"n from {plain(float(np.min(n)))} to {plain(float(np.max(n)))}"
        findings[f"exponent of n, {curve.name}"] = (
            f"none: {len(n)} n, expected three with positive values" if law is None else f"{law} ({span})"
        )
    return findings
