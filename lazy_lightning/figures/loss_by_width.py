"""Test performance against the number of neurons, at a fixed alpha and at a fixed sqrt(h) alpha: the two scalings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.band import Band
from lazy_lightning.figures.marks import draw_band, draw_seeds, offset_marks
from lazy_lightning.figures.quantity import POPULATION, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import common_scale_math, common_scale_words, scale_math, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    counted_seeds,
    errors_phrase,
    has,
    unfinished_note,
    width_curves,
)
from lazy_lightning.runs.configuration import significant

_LEAST = 4
_MOST = 6


class _Name(NamedTuple):
    """The scale of a curve."""

    math: str
    words: str


def loss_by_width(runs: pd.DataFrame) -> ReportFigure:
    """Draws a curve for each alpha and each sqrt(h) alpha with at least four widths, at most six curves.

    A fixed alpha is the 1/sqrt(h) scaling of two-layer networks, lazy for large h; a fixed sqrt(h) alpha is the 1/h
    scaling (arXiv:1812.07956, figure 2). The quantity is the population loss if it was observed, else the error or loss
    on the test set.

    Raises:
        AnalysisError: fewer than four widths share a scale.
    """
    quantity = POPULATION if has(runs, POPULATION.column) else performance(runs)
    curves = width_curves(runs, quantity.column)
    lines = _lines(curves, scaled=False) | _lines(curves, scaled=True)
    if not lines:
        raise AnalysisError(
            f"no alpha and no sqrt(h) alpha is common to {_LEAST} widths or more: sweep more widths at one scale"
        )
    bands = {name: _band(line, quantity, logarithmic=_is_logarithmic(lines)) for name, line in lines.items()}
    with paper_style():
        figure = Figure(figsize=(4.2, 3.6))
        axis = figure.subplots()
        _draw(axis, lines, bands, quantity)
    counts = [int(count) for line in lines.values() for count in line.counts if count]
    mean = "geometric mean" if _is_logarithmic(lines) else "mean"
    caption = (
        f"{quantity.name.capitalize()} against the number h of neurons: {mean} of {counted_seeds(counts)} ("
        f"{errors_phrase(list(lines.values()))}). Fixed alpha is the 1/sqrt(h) scaling, fixed sqrt(h) alpha the "
        f"1/h scaling.{unfinished_note(runs)}"
    )
    title = f"{quantity.name.capitalize()} by width"
    return ReportFigure(
        "loss_by_width", title, caption, figure, _table(lines, bands), _findings(lines, bands, quantity)
    )


def _lines(curves: list[WidthCurve], *, scaled: bool) -> dict[_Name, WidthCurve]:
    """Returns the curves by name; the attribute ``alpha`` of each contains h."""
    found: dict[float, list[tuple[float, dict[int, float]]]] = {}
    over = curves[0].over
    for curve in curves:
        for i, at in enumerate(curve.scale if scaled else curve.alpha):
            values = dict(zip(curve.seeds, curve.values[i].tolist(), strict=True))
            found.setdefault(significant(float(at), 6), []).append((curve.h, values))
    kept = {at: points for at, points in sorted(found.items()) if len(points) >= _LEAST}
    chosen = list(kept)[:: max(1, -(-len(kept) // (_MOST // 2)))]
    return {_name(at, scaled=scaled): _curve(kept[at], over) for at in chosen}


def _name(at: float, *, scaled: bool) -> _Name:
    if scaled:
        return _Name(common_scale_math(at), common_scale_words(at))
    return _Name(scale_math(float("nan"), at), scale_words(float("nan"), at))


def _curve(points: list[tuple[float, dict[int, float]]], over: str) -> WidthCurve:
    seeds = tuple(sorted({seed for _, values in points for seed in values}))
    values = np.array([[values.get(seed, np.nan) for seed in seeds] for _, values in points])
    return WidthCurve(float("nan"), np.array([h for h, _ in points]), values, seeds, over)


def _is_logarithmic(lines: dict[_Name, WidthCurve]) -> bool:
    """Whether the values are positive and differ by more than a factor of 10."""
    values = np.concatenate([line.values.ravel() for line in lines.values()])
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def _band(line: WidthCurve, quantity: Quantity, *, logarithmic: bool) -> Band:
    """Returns the geometric mean on a logarithmic axis, where losses of few seeds scatter by factors, or the mean."""
    return Band(*(quantity.factor * part for part in line.log_band())) if logarithmic else line.band(quantity.factor)


def _draw(axis: Axes, lines: dict[_Name, WidthCurve], bands: dict[_Name, Band], quantity: Quantity) -> None:
    for (name, line), mark in zip(lines.items(), offset_marks(len(lines), 0), strict=True):
        draw_seeds(axis, line.alpha, quantity.factor * line.values, mark)
        draw_band(axis, line.alpha, bands[name], mark, name.math)
    axis.set(xlabel="$h$", ylabel=quantity.label, xscale="log")
    if _is_logarithmic(lines):
        axis.set_yscale("log")
    axis.legend()


def _table(lines: dict[_Name, WidthCurve], bands: dict[_Name, Band]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"scaling": name.math, "h": line.alpha, "seeds": line.counts, **bands[name]._asdict()})
        for name, line in lines.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _findings(lines: dict[_Name, WidthCurve], bands: dict[_Name, Band], quantity: Quantity) -> dict[str, str]:
    findings = {}
    for name, line in lines.items():
        mean = bands[name].mean
        findings[f"{quantity.name}, {name.words}"] = (
            f"{mean[0]:.3g}{quantity.unit} at h = {line.alpha[0]:.6g}, least {np.nanmin(mean):.3g}{quantity.unit} "
            f"at h = {line.alpha[int(np.nanargmin(mean))]:.6g}, {mean[-1]:.3g}{quantity.unit} at "
            f"h = {line.alpha[-1]:.6g}"
        )
    return findings
