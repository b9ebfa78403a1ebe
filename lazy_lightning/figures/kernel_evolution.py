"""What the tangent kernel on the way generalises to, beside its norm and alignment: against t and the training loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from lazy_lightning.analysis import mean_and_error
from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.flow_average import (
    FlowCurve,
    Followed,
    ascending,
    averaged,
    draw_flow_curve,
    error_over,
    followed,
    mean_words,
)
from lazy_lightning.figures.marks import Mark, alpha_marks, legend_above, log_axes
from lazy_lightning.figures.quantity import Quantity
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_name, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import has, unfinished_note

_START = "kernel_evolution/"
NORM, LABELS, VELOCITY = f"{_START}norm", f"{_START}label_alignment", f"{_START}velocity"
_TRAIN_LOSS = "train/loss"
_ERROR = Quantity(f"{_START}test_error", "test error", "test error (%)", 100.0, " %")
_LOSS = Quantity(f"{_START}test_loss", "test loss", "test loss $(F - y)^2/2$", 1.0, "")
_NETWORK = {_ERROR.column: "test/error", _LOSS.column: "test/loss"}


class _Alpha(NamedTuple):
    """The curves of one alpha."""

    kernel: FlowCurve
    """Test error or loss of regression with Theta_t against t."""
    kernel_by_loss: FlowCurve
    """The same against the factor by which the training loss has fallen."""
    network: FlowCurve
    """Test error or loss of the networks themselves against t."""
    network_by_loss: FlowCurve
    labels: FlowCurve
    """Alignment of Theta_t with the labels against t."""
    norm: FlowCurve
    """‖Theta_t‖/‖Theta_0‖ against t."""


class _Start(NamedTuple):
    """Regression with the kernel at w0."""

    mean: float
    error: float
    seeds: int
    """Number of draws."""
    over: str
    """What the error is over."""


def kernel_evolution(runs: pd.DataFrame) -> ReportFigure:
    """Draws the test error of regression with Theta_t, its label alignment and its norm, at up to five alphas.

    The error is drawn against t and against the training loss relative to its start, beside that of the networks
    (dotted) and of regression with Theta_0 (grey line).

    Raises:
        AnalysisError: the evolution of the kernel was not observed.
    """
    quantity = _ERROR if has(runs, _ERROR.column) else _LOSS
    network = _NETWORK[quantity.column]
    chosen = followed(runs, [quantity.column, network, NORM, LABELS, _TRAIN_LOSS])
    found = {alpha: curves for alpha in chosen.alphas if (curves := _curves(chosen, alpha, quantity)) is not None}
    if not found:
        raise AnalysisError("no kernel has been measured after the start: train longer, or set a smaller t_factor")
    start = _initial(chosen, quantity)
    with paper_style():
        figure = _draw(chosen, found, start, quantity)
    caption = (
        f"Tangent kernel on the way of {chosen.description}, {mean_words([one.kernel for one in found.values()])}. "
        f"Above: {quantity.name} of regression with Theta_t (solid) and of the network (dotted), against t and against "
        f"the training loss over its initial value; grey: regression with Theta_0, {_with_unit(start, quantity)} "
        f"({error_over([start.seeds], [start.over])}). Below: centred alignment of Theta_t with the labels, and its "
        f"norm over that of Theta_0.{unfinished_note(runs)}"
    )
    table = pd.concat([_rows(chosen.h, alpha, curves) for alpha, curves in found.items()], ignore_index=True)
    findings = {
        f"{quantity.name} of regression with the last kernel, {scale_words(chosen.h, alpha)}": (
            f"{curves.kernel.band.mean[-1]:.3g}{quantity.unit}, network {curves.network.band.mean[-1]:.3g}"
            f"{quantity.unit}, kernel at w0 {_with_unit(start, quantity)}"
        )
        for alpha, curves in found.items()
    }
    return ReportFigure("kernel_evolution", "Kernel on the way", caption, figure, table, findings)


def _curves(chosen: Followed, alpha: float, quantity: Quantity) -> _Alpha | None:
    """Returns the curves of one alpha, None if none of its kernels was measured at t > 0."""
    of_alpha = chosen.curves[chosen.curves["alpha"] == alpha]
    members = [member.sort_values("observation") for _, member in of_alpha.groupby("id", sort=True)]
    parts = [_measured(member, quantity.column) for member in members]
    names = [str(member["id"].iloc[0]) for member, part in zip(members, parts, strict=True) if len(part["t"])]
    kept = [part for part in parts if len(part["t"])]
    if not kept:
        return None
    drawn = chosen.drawn(names)

    def against(time: str, column: str, factor: float = 1.0) -> FlowCurve:
        return averaged([ascending(part[time], part[column]) for part in kept], drawn).times(factor)

    return _Alpha(
        against("t", "kernel", quantity.factor),
        against("fall", "kernel", quantity.factor),
        against("t", "network", quantity.factor),
        against("fall", "network", quantity.factor),
        against("t", "labels"),
        against("t", "norm"),
    )


def _measured(member: pd.DataFrame, column: str) -> dict[str, NDArray[np.float64]]:
    """Returns a member's measurements at t > 0; ``fall`` is the initial training loss over the present one."""
    first = member.iloc[0]
    there = member[np.isfinite(member[column].astype(float)) & (member["t"] > 0)]
    numbers = {name: there[name].to_numpy(dtype=np.float64) for name in (column, _NETWORK[column], NORM, LABELS, "t")}
    return {
        "t": numbers["t"],
        "fall": float(first[_TRAIN_LOSS]) / there[_TRAIN_LOSS].to_numpy(dtype=np.float64),
        "kernel": numbers[column],
        "network": numbers[_NETWORK[column]],
        "labels": numbers[LABELS],
        "norm": numbers[NORM] / float(first[NORM]),
    }


def _initial(chosen: Followed, quantity: Quantity) -> _Start:
    """Returns mean and error, over draws, of regression with the kernel at w0, which does not depend on alpha."""
    first = chosen.curves[(chosen.curves["observation"] == 0) & (chosen.curves["alpha"] == chosen.alphas[0])]
    drawn = chosen.drawn(first["id"].astype(str).tolist())
    values = first[quantity.column].astype(np.float64).groupby(drawn.labels).mean().to_numpy(dtype=np.float64)
    mean, error = mean_and_error(quantity.factor * values[None])
    return _Start(float(mean[0]), float(error[0]), len(values), drawn.over)


def _with_unit(start: _Start, quantity: Quantity) -> str:
    return f"{with_error(start.mean, start.error)}{quantity.unit}"


def _draw(chosen: Followed, found: dict[float, _Alpha], start: _Start, quantity: Quantity) -> Figure:
    marks = alpha_marks(chosen.alphas)
    figure = Figure(figsize=(6.6, 5.0))
    axes = figure.subplots(2, 2)
    for alpha, curves in found.items():
        mark = marks[alpha]._replace(line="-")
        _draw_pair(axes[0, 0], curves.kernel, curves.network, mark)
        _draw_pair(axes[0, 1], _over_loss(curves.kernel_by_loss), _over_loss(curves.network_by_loss), mark)
        draw_flow_curve(axes[1, 0], curves.labels, mark)
        draw_flow_curve(axes[1, 1], curves.norm, mark)
        axes[0, 0].plot([], [], **mark.line_style, label=scale_name(chosen.h, alpha))
    for axis in axes[0]:
        axis.axhline(start.mean, color="0.6", lw=1.5, zorder=0)
        axis.set_ylabel(quantity.label)
    for axis in axes.flat:
        log_axes(axis, y=axis is not axes[1, 0])
        axis.set_xlabel("$t$")
    for axis in axes[0]:
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    axes[0, 1].set_xlabel("train loss / initial train loss")
    axes[0, 1].invert_xaxis()
    axes[1, 0].set_ylabel(r"alignment of $\Theta_t$ with the labels")
    axes[1, 1].set_ylabel(r"$\Vert \Theta_t \Vert\,/\,\Vert \Theta_0 \Vert$")
    axes[1, 1].yaxis.set_minor_locator(LogLocator(subs="auto"))
    axes[1, 1].yaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_title("kernel —   network ···")
    legend_above(figure, axes[0, 0], columns=5, title=chosen.title)
    return figure


def _over_loss(curve: FlowCurve) -> FlowCurve:
    """Returns a curve against the factor by which the loss has fallen as one against the remaining share."""
    return curve._replace(t=1 / curve.t)


def _draw_pair(axis: Axes, kernel: FlowCurve, network: FlowCurve, mark: Mark) -> None:
    draw_flow_curve(axis, kernel, mark)
    axis.plot(network.t, network.band.mean, color=mark.color, ls=":")


def _rows(h: float, alpha: float, curves: _Alpha) -> pd.DataFrame:
    parts = []
    for name, curve in curves._asdict().items():
        who = {"h": h, "alpha": alpha, "sqrt_h_alpha": h**0.5 * alpha, "seeds": curve.seeds, "quantity": name}
        x = {"x": "initial train loss / train loss" if name.endswith("by_loss") else "t", "value": curve.t}
        parts.append(pd.DataFrame({**who, **x, **curve.band._asdict()}))
    return pd.concat(parts, ignore_index=True)
