"""Losses against the scale of initialisation: at the end of training, and the best during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.analysis import with_error
from lazy_lightning.errors import AnalysisError, ConfigError
from lazy_lightning.figures.column_words import not_followed
from lazy_lightning.figures.marks import (
    Mark,
    draw_band,
    draw_seeds,
    legend_above,
    log_axes,
    offset_marks,
    width_label,
    width_marks,
)
from lazy_lightning.figures.quantity import ERROR, LOSS, POPULATION, Quantity
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import ALPHA_LABEL, add_richness_axis, scale_words
from lazy_lightning.figures.stated_scale import states_gamma
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    errors_phrase,
    finished,
    has,
    named_width,
    observed,
    seeds_phrase,
    unfinished_note,
    width_curves,
)

TRAIN = Quantity("train/loss", "train loss", r"train loss $\ell(F, y)$", 1.0, "")
_TAU_LABEL = r"initial scale $\tau$"
_NETWORK = "model.network"
_LIMITS = ("t_max", "max_steps", "max_wall")


class TrainedLosses(NamedTuple):
    """The losses of one width against alpha."""

    train: WidthCurve
    """The train loss at the end."""
    end: WidthCurve
    """The population or test loss at the end."""
    best: WidthCurve
    """The least value of the same at any observation of the member."""


def best_in_training(runs: pd.DataFrame) -> ReportFigure:
    """Draws the train loss at the end, and the population loss at the end and at best during training, against alpha.

    Without a population loss it is the test loss of a regression. With the two-layer relu networks of
    arXiv:1812.07956 a second axis has the scale of initialisation tau, see :func:`initial_scale`.

    Raises:
        AnalysisError: no population loss was observed and the task is no regression, or there are no curves.
    """
    quantity = _quantity(runs)
    found = trained_losses(runs, quantity)
    with paper_style():
        figure = Figure(figsize=(6.8, 3.5))
        left, right = figure.subplots(1, 2)
        _draw_ends(left, found)
        _draw_best(right, found, quantity)
        for axis in (left, right):
            _second_axis(axis, runs, found)
        if len(found) > 1:
            legend_above(figure, left, columns=6)
    curves = [losses.end for losses in found]
    caption = (
        f"Left: train loss at the end of training. Right: {quantity.name}, solid at the end of training, dotted the "
        f"least at any observation of a network. Means of {seeds_phrase(curves)} ({errors_phrase(curves)} at the end)."
        f"{_limited_note(runs)}{unfinished_note(runs)}"
    )
    title = f"{quantity.name.capitalize()} at the end and at best"
    return ReportFigure("best_in_training", title, caption, figure, _table(found, quantity), _findings(found, quantity))


def initial_scale(alpha: ArrayLike, h: float, network: pd.Series[Any]) -> NDArray[np.float64] | None:
    """Returns tau, with which sum_j b_j relu(a_j . x) of weights N(0, tau^2) is trained as F = alpha f.

    F is homogeneous of degree two in the weights, so F = alpha s sum_j b_j relu(a_j . x) of weights of the scale tau_0
    is this sum of the weights w sqrt(alpha s), s = 1/sqrt(h) or 1/h, on which gradient flow of L is gradient flow of
    sum ell/n in the time t s/alpha: tau = tau_0 sqrt(alpha s) (arXiv:1812.07956).

    Args:
        alpha: the scales.
        h: number of neurons.
        network: the configuration of one member, a row of the table of runs.

    Returns:
        None for other networks, or with centering of a function that is not zero at w0.

    >>> row = pd.Series({"model.network": "TwoLayer", "model.network.scaling": "mean", "model.network.tau": 3.0,
    ...                  "model.network.activation": "relu", "model.centering": False})
    >>> initial_scale([100.0], 25.0, row)
    array([6.])
    """
    symmetric = network.get(f"{_NETWORK}.symmetric") in (True, "true")
    centered = network.get("model.centering") not in (False, "false")
    if (
        network.get(_NETWORK) != "TwoLayer"
        or network.get(f"{_NETWORK}.activation") != "relu"
        or (centered and not symmetric)
    ):
        return None
    power = 0.5 if network.get(f"{_NETWORK}.scaling") == "sqrt" else 1.0
    start = network.get(f"{_NETWORK}.tau", 1.0)
    tau: NDArray[np.float64] = float(1.0 if start != start else start) * np.sqrt(
        np.asarray(alpha, dtype=np.float64) / h**power
    )
    return tau


def trained_losses(runs: pd.DataFrame, quantity: Quantity) -> list[TrainedLosses]:
    """Returns the losses of each width, of members with both.

    Raises:
        AnalysisError: the losses were not followed in training.
    """
    rows = observed(finished(runs), quantity.column)
    best = least_in_training(rows, quantity.column)
    rows = rows.assign(_best=[best.get(str(member), np.nan) for member in rows["id"]])
    rows = rows[rows["_best"].notna()]
    if rows.empty or not has(rows, TRAIN.column):
        raise AnalysisError(not_followed([quantity.column]))
    parts = (width_curves(rows, column) for column in (TRAIN.column, quantity.column, "_best"))
    return [TrainedLosses(*curves) for curves in zip(*parts, strict=True)]


def least_in_training(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Returns the least finite value of a column at any observation of each member, by its identity."""
    try:
        curves: pd.DataFrame = rows.curves.load([column])
    except (AttributeError, ConfigError):  # a table that was not loaded from runs has no curves
        return {}
    values = pd.to_numeric(curves[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
    least = values.groupby(curves["id"].astype(str)).min().dropna()
    return {str(member): float(value) for member, value in least.items()}


def _quantity(runs: pd.DataFrame) -> Quantity:
    if has(runs, POPULATION.column):
        return POPULATION
    if has(runs, ERROR.column):
        raise AnalysisError(
            "the loss at best during training is drawn of regressions and of synthetic tasks: for these add the "
            "observer PopulationLoss to the configuration"
        )
    return LOSS


def _limited_note(runs: pd.DataFrame) -> str:
    """Returns a sentence on the networks that ended at a limit, whose loss may still have been falling."""
    rows = finished(runs)
    limited = int(rows["reason"].isin(_LIMITS).sum()) if "reason" in rows else 0
    return f" {limited} of {len(rows)} networks ended at a limit on time or steps." if limited else ""


def _draw_ends(axis: Axes, found: Sequence[TrainedLosses]) -> None:
    marks = width_marks([losses.train.h for losses in found])
    for losses in found:
        mark = marks[losses.train.h]
        draw_seeds(axis, losses.train.alpha, losses.train.values, mark)
        draw_band(axis, losses.train.alpha, losses.train.band(), mark, width_label(losses.train.h))
    axis.set(xlabel=ALPHA_LABEL, ylabel=TRAIN.label)
    log_axes(axis)


def _draw_best(axis: Axes, found: Sequence[TrainedLosses], quantity: Quantity) -> None:
    marks = width_marks([losses.end.h for losses in found])
    for losses in found:
        mark = marks[losses.end.h]
        draw_seeds(axis, losses.end.alpha, losses.end.values, mark)
        draw_band(axis, losses.end.alpha, losses.end.band(), mark._replace(line="-"))
        color = mark.color if len(found) > 1 else offset_marks(1, 2)[0].color
        draw_band(axis, losses.best.alpha, losses.best.band(), Mark(color, "", ":"))
    shown = ("0.3", "0.3") if len(found) > 1 else (mark.color, color)
    for line, drawn_in, label in zip(("-", ":"), shown, ("end of training", "best during training"), strict=True):
        axis.plot([], [], line, color=drawn_in, label=label)
    axis.set(xlabel=ALPHA_LABEL, ylabel=quantity.label)
    log_axes(axis)
    axis.legend()


def _second_axis(axis: Axes, runs: pd.DataFrame, found: Sequence[TrainedLosses]) -> None:
    """Adds the axis of tau, or that of gamma if it is stated, above a panel of networks of one width."""
    h = found[0].end.h
    if len(found) > 1 or h != h:
        return
    if states_gamma():
        add_richness_axis(axis, h)
        return
    unit = initial_scale(1.0, h, finished(runs).iloc[0])
    if unit is not None:
        one = float(unit)
        above = axis.secondary_xaxis(
            "top",
            functions=(
                lambda alpha: one * np.sqrt(np.maximum(alpha, 0.0)),
                lambda tau: (np.asarray(tau) / one) ** 2,
            ),
        )
        above.set_xlabel(_TAU_LABEL)


def _table(found: Sequence[TrainedLosses], quantity: Quantity) -> pd.DataFrame:
    parts = [
        curve.long(quantity=column, at=at, **curve.band()._asdict(), over=curve.over)
        for losses in found
        for curve, column, at in (
            (losses.train, TRAIN.column, "end"),
            (losses.end, quantity.column, "end"),
            (losses.best, quantity.column, "best"),
        )
    ]
    return pd.concat(parts, ignore_index=True)


def _findings(found: Sequence[TrainedLosses], quantity: Quantity) -> dict[str, str]:
    findings = {}
    for losses in found:
        for curve, name in ((losses.end, "at the end of training"), (losses.best, "at best during training")):
            mean, low, _ = curve.band()
            ends = dict.fromkeys((0, int(np.nanargmin(mean)), len(mean) - 1))
            findings[f"{quantity.name} {name}, {named_width(curve.h)}"] = "; ".join(
                f"{with_error(float(mean[i]), float(mean[i] - low[i]))} at "
                f"{scale_words(curve.h, float(curve.alpha[i]), own='alpha')}"
                for i in ends
            )
    return findings
