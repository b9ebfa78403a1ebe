"""The plane of alpha and the temperature of SGD: errors, kernel drift and displacement where margins were met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.analysis import power_law
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.asymptotic_regions import DRIFT
from lazy_lightning.figures.phase_diagram import DRIFT_LABEL, edges
from lazy_lightning.figures.quantity import ERROR, Quantity
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import ALPHA_LABEL
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    NETWORK,
    WidthCurve,
    error_words,
    finished,
    named_width,
    of_width,
    seeds_phrase,
    sorted_widths,
    width_curves,
)

RATE, BATCH = "model.optimizer.lr", "data.batch_size"
_OPTIMIZER, _MOMENTUM, _SAMPLES = "model.optimizer", "model.optimizer.momentum", "data.n_train"
"""The keys whose ratio is the temperature."""
MARGINS_MET = "margins_met"
"""The stop of a member that has met its margins."""
_QUANTITIES = (
    ERROR,
    Quantity(DRIFT, "kernel drift", DRIFT_LABEL, 1.0, ""),
    Quantity("displacement/total", "displacement", r"displacement $\Vert w - w_0 \Vert / \Vert w_0 \Vert$", 1.0, ""),
    Quantity("t", "time", "time $t^*$ (rate times steps)", 1.0, ""),
)


class _Row(NamedTuple):
    temperature: float
    curve: WidthCurve


def temperatures(runs: pd.DataFrame) -> pd.Series[float]:
    """Returns lr/batch of each row, NaN unless it was trained by plain SGD at one constant rate for all members.

    A batch is at most the training set. Accumulated batches are not known to a table of runs, and not counted.
    """
    found = pd.Series(np.nan, index=runs.index)
    if RATE not in runs or BATCH not in runs:
        return found
    constant = pd.Series(True, index=runs.index)
    for key in ("model.learning_rates", "model.search", "model.lr_scheduler"):
        if key in runs:
            constant &= runs[key].isna()
    if _OPTIMIZER in runs:
        constant &= runs[_OPTIMIZER] == "SGD"
    if _MOMENTUM in runs:
        constant &= ~(pd.to_numeric(runs[_MOMENTUM], errors="coerce") > 0)
    batch = pd.to_numeric(runs[BATCH], errors="coerce")
    if _SAMPLES in runs:
        samples = pd.to_numeric(runs[_SAMPLES], errors="coerce")
        batch = batch.where(~(samples < batch), samples)
    return found.where(~constant, pd.to_numeric(runs[RATE], errors="coerce") / batch)


def noise_plane(runs: pd.DataFrame) -> ReportFigure:
    """Draws the test error, the kernel drift, the displacement and the time over alpha and T = lr/batch.

    Members that ended at their margins are drawn, of the largest width (arXiv:2301.13703).

    Raises:
        AnalysisError: fewer than two temperatures have members that ended at their margins.
    """
    rows = finished(runs)
    h = sorted_widths(rows)[-1]
    rows = of_width(rows, h)
    rows = rows.assign(_temperature=temperatures(rows))
    fitted = rows[rows["reason"] == MARGINS_MET]
    if fitted["_temperature"].nunique() < 2:
        raise AnalysisError(
            "the noise plane needs members that ended at their margins at two temperatures lr/batch of SGD without "
            "momentum: set model.stop_margin, train until it is reached, and sweep model.optimizer.lr or "
            "data.batch_size"
        )
    planes = [(quantity, list(_rows(fitted, quantity))) for quantity in _QUANTITIES if quantity.column in fitted]
    with paper_style():
        figure = Figure(figsize=(3.3 * len(planes), 3.2))
        axes = figure.subplots(1, len(planes), sharey=True, squeeze=False)[0]
        for axis, (quantity, lines) in zip(axes, planes, strict=True):
            _draw(figure, axis, quantity, lines)
        axes[0].set_ylabel("temperature $T$ = lr/batch")
    curves = [line.curve for _, lines in planes for line in lines]
    trained = int((of_width(runs[runs["model"] == NETWORK], h)["model"]).count())
    caption = (
        f"Members trained by SGD at a constant rate until all training margins were met, {named_width(h)}: means of "
        f"{seeds_phrase(curves)} (errors in the table: {error_words(curves)}); all members have the same test "
        f"samples. Left out: {trained - len(fitted)} of {trained} members, which had not met their margins by the end "
        "of the run or failed; cells without any are empty."
    )
    table = pd.concat([_table(quantity, lines) for quantity, lines in planes], ignore_index=True)
    return ReportFigure("noise_plane", "Noise plane", caption, figure, table, dict(_findings(planes)))


def _rows(fitted: pd.DataFrame, quantity: Quantity) -> Iterator[_Row]:
    for temperature, rows in fitted.groupby("_temperature"):
        try:
            (curve,) = width_curves(rows, quantity.column)
        except AnalysisError:  # not measured at this temperature
            continue
        yield _Row(float(temperature), curve)  # type: ignore[arg-type]


def _draw(figure: Figure, axis: Axes, quantity: Quantity, lines: Sequence[_Row]) -> None:
    values = [line.curve.band(quantity.factor).mean for line in lines]
    every = np.concatenate(values)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    norm = LogNorm(low, high) if quantity is not ERROR and 0 < low < high else Normalize(low, max(high, low + 1e-12))
    alphas = np.unique(np.concatenate([line.curve.alpha for line in lines]))
    sides, heights = edges(alphas), edges(np.array([line.temperature for line in lines]))
    grid = np.full((len(lines), len(alphas)), np.nan)
    for i, (line, mean) in enumerate(zip(lines, values, strict=True)):
        grid[i, np.searchsorted(alphas, line.curve.alpha)] = mean
    mesh = axis.pcolormesh(
        sides, heights, np.ma.masked_invalid(grid), norm=norm, cmap=mpl.colormaps["cividis"], rasterized=True
    )
    figure.colorbar(mesh, ax=axis, pad=0.02)
    axis.set(xscale="log", yscale="log", xlabel=ALPHA_LABEL, title=quantity.label)
    axis.grid(False)


def _table(quantity: Quantity, lines: Sequence[_Row]) -> pd.DataFrame:
    parts = []
    for temperature, curve in lines:
        band = curve.band(quantity.factor)._asdict()
        parts.append(curve.long(T=temperature, quantity=quantity.column, **band, over=curve.over))
    return pd.concat(parts, ignore_index=True)


def _findings(planes: Sequence[tuple[Quantity, Sequence[_Row]]]) -> Iterator[tuple[str, str]]:
    """Yields the test error at both ends of T, and exponents in T of the other quantities, for each alpha."""
    for quantity, lines in planes:
        for alpha in np.unique(np.concatenate([line.curve.alpha for line in lines])):
            own = [(line.temperature, line.curve.at(line.curve.alpha == alpha)) for line in lines]
            own = [(temperature, curve) for temperature, curve in own if len(curve.alpha)]
            if quantity is ERROR and len(own) > 1:
                yield f"test error, alpha = {alpha:g}", " and ".join(_value(*own[end], quantity) for end in (0, -1))
            elif quantity is not ERROR:
                yield from _exponent(float(alpha), own, quantity)


def _value(temperature: float, curve: WidthCurve, quantity: Quantity) -> str:
    mean, low, _ = curve.band(quantity.factor)
    return f"{mean[0]:.2f} ± {mean[0] - low[0]:.2f}{quantity.unit} at T = {temperature:.3g} (over {curve.over})"


def _exponent(alpha: float, own: Sequence[tuple[float, WidthCurve]], quantity: Quantity) -> Iterator[tuple[str, str]]:
    columns = sorted({seed for _, curve in own for seed in curve.seeds})
    values: NDArray[np.float64] = np.full((len(own), len(columns)), np.nan)
    for i, (_, curve) in enumerate(own):
        values[i, [columns.index(seed) for seed in curve.seeds]] = curve.values[0]
    try:
        law = power_law([temperature for temperature, _ in own], values)
    except AnalysisError:
        return
    yield (
        f"exponent of T, {quantity.name}, alpha = {alpha:g}",
        f"{law} ({law.points} temperatures, over {own[0][1].over})",
    )
