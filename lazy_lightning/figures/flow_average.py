"""Curves of a few alphas against the flow time, averaged over seeds on a common grid of log t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lazy_lightning.analysis import mean_and_error
from lazy_lightning.errors import AnalysisError, ConfigError
from lazy_lightning.figures.band import Band
from lazy_lightning.figures.column_words import not_followed
from lazy_lightning.figures.draws import WEIGHTS, Draws, draws
from lazy_lightning.figures.marks import Mark
from lazy_lightning.figures.scale import scale_title
from lazy_lightning.figures.sweep_table import finished, named_width, of_width, sorted_widths

_POINTS = 120
"""Number of points of a grid, about the number of observations of a run."""
_FLOOR = 1e-3
"""Lower end of a band relative to the mean, because a log axis has no 0."""


class FlowCurve(NamedTuple):
    """The mean over draws, mostly seeds, of a column against a time."""

    t: NDArray[np.float64]
    """Times (g,), positive and ascending."""
    band: Band
    """Mean and error (g,)."""
    seeds: int
    """Number of draws."""
    over: str = WEIGHTS
    """What the error is over, see :mod:`~lazy_lightning.figures.draws`."""

    def times(self, factor: float) -> FlowCurve:
        """Returns the curve in other units, such as percent with a factor of 100."""
        return self._replace(band=Band(*(factor * part for part in self.band)))


class Followed(NamedTuple):
    """The networks whose curves are drawn."""

    h: float
    members: pd.DataFrame
    """Their rows in the table of runs."""
    curves: pd.DataFrame
    """Their observations in long form."""
    alphas: list[float]
    """Their alphas in ascending order."""

    @property
    def title(self) -> str:
        """Title of the legend, in which :func:`~lazy_lightning.figures.scale.scale_name` names the curves."""
        return scale_title(self.h)

    @property
    def description(self) -> str:
        """Description for captions, such as ``h = 100 at 5 alphas``."""
        count = len(self.alphas)
        return f"{named_width(self.h)} at {count} alpha{'s' * (count > 1)} from feature (dark) to lazy (light)"

    def drawn(self, ids: Sequence[str]) -> Draws:
        """Returns the draws of some members, by their identities."""
        found = draws(self.members)
        of_id = dict(zip(self.members["id"].astype(str), found.labels.tolist(), strict=True))
        return Draws(np.array([of_id[one] for one in ids], dtype=np.int64), found.over)

    def average(self, alpha: float, column: str, unit: str | None = None) -> FlowCurve | None:
        """Averages a column against t, or against t over each member's ``unit`` (``t1/half_loss``); None if empty."""
        chosen = self.members[self.members["alpha"] == alpha]
        units = {str(i): 1.0 for i in chosen["id"]} if unit is None else _units(chosen, unit)
        of_alpha = self.curves[self.curves["alpha"] == alpha]
        parts = {
            str(name): (moving["t"].to_numpy(dtype=np.float64) / units[str(name)], moving[column].to_numpy(np.float64))
            for name, member in of_alpha.groupby("id", sort=True)
            if str(name) in units and len(moving := _moving(member, column))
        }
        return averaged(list(parts.values()), self.drawn(list(parts))) if parts else None


def followed(runs: pd.DataFrame, columns: Sequence[str], count: int = 5) -> Followed:
    """Returns the widest finished networks with all these columns in their curves, at some of their alphas.

    Raises:
        AnalysisError: no finished network has the columns.
    """
    rows = finished(runs)
    for h in reversed(sorted_widths(rows)):
        members = of_width(rows, h)
        curves = _load(members, columns)
        if curves is not None:
            alphas = spread(curves["alpha"].unique().tolist(), count)
            return Followed(h, members, curves, alphas)
    raise AnalysisError(not_followed(columns))


def spread(alphas: Sequence[float], count: int) -> list[float]:
    """Selects at most ``count`` alphas with even distances in log alpha, including the smallest and the largest.

    >>> spread([1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0], 3)
    [0.001, 1.0, 1000.0]
    """
    ordered = sorted(set(alphas))
    if len(ordered) <= count:
        return ordered
    logs = np.log(ordered)
    goals = np.linspace(logs[0], logs[-1], count)
    nearest = {int(np.abs(logs - goal).argmin()) for goal in goals}
    return [ordered[i] for i in sorted(nearest)]


def averaged(parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], drawn: Draws | None = None) -> FlowCurve:
    """Averages curves (times (o,) ascending and positive, values (o,)) over draws, interpolated linearly in log t.

    A curve is extended by its last value after its end, because the member keeps its weights, and by its first value
    before its start. Curves of one draw, such as those of one training set, are averaged first.

    Args:
        parts: the curve of each member.
        drawn: the draw of each member; None if each is one of its own.

    >>> one, other = (np.array([1.0, 16.0]), np.array([0.0, 1.0])), (np.array([1.0, 2.0]), np.array([0.0, 3.0]))
    >>> curve = averaged([one, other])
    >>> float(curve.t[-1].round(9)), float(curve.band.mean[-1])
    (16.0, 2.0)
    """
    first, last = min(t[0] for t, _ in parts), max(t[-1] for t, _ in parts)
    grid = np.geomspace(first, last, _POINTS if first < last else 1)
    values = np.stack([np.interp(np.log(grid), np.log(t), y) for t, y in parts], axis=1)
    over = WEIGHTS if drawn is None else drawn.over
    if drawn is not None:
        labels = drawn.labels
        values = np.stack([values[:, labels == label].mean(axis=1) for label in sorted(set(labels.tolist()))], axis=1)
    mean, error = mean_and_error(values)
    return FlowCurve(grid, Band(mean, mean - error, mean + error), values.shape[1], over)


def ascending(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the points (o,) at which x is positive and larger than ever before.

    >>> ascending(np.array([1.0, 0.5, 2.0]), np.array([3.0, 4.0, 5.0]))
    (array([1., 2.]), array([3., 5.]))
    """
    best = np.maximum.accumulate(np.concatenate([[0.0], x[:-1]]))
    new = (x > best) & np.isfinite(x)
    return x[new], y[new]


def mean_words(curves: Sequence[FlowCurve]) -> str:
    """Describes curves for captions, such as ``mean and standard error over 3 seeds of the weights, widened by
    Student's t``."""
    counts = [curve.seeds for curve in curves]
    if max(counts) == 1:
        return "one member each, without an error"
    return f"mean and {error_over(counts, [curve.over for curve in curves])}"


def error_over(counts: Sequence[int], over: Sequence[str]) -> str:
    """States what an error is over, with the number of draws.

    >>> error_over([3, 3], ["seeds of the weights"] * 2), error_over([1, 2], ["training sets"] * 2)
    ("standard error over 3 seeds of the weights, widened by Student's t", "standard error over 1 to 2 training sets, \
widened by Student's t")
    """
    if max(counts) == 1:
        return "one member, without an error"
    number = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return f"standard error over {number} {' or '.join(dict.fromkeys(over))}, widened by Student's t"


def draw_flow_curve(axis: Axes, curve: FlowCurve, mark: Mark) -> None:
    """Draws the mean, its band, and a marker at the end of the last member."""
    axis.plot(curve.t, curve.band.mean, color=mark.color, ls=mark.line)
    axis.plot(curve.t[-1:], curve.band.mean[-1:], color=mark.color, marker=mark.marker, ls="none")
    there = np.isfinite(curve.band.low)
    low = np.maximum(curve.band.low, _FLOOR * curve.band.mean)
    axis.fill_between(curve.t[there], low[there], curve.band.high[there], color=mark.color, alpha=0.15, lw=0)


def _units(members: pd.DataFrame, column: str) -> dict[str, float]:
    """Returns the unit of time by the member's identity; members without a value are left out."""
    numbers = pd.to_numeric(members[column], errors="coerce")
    return {
        str(name): float(value)
        for name, value in zip(members["id"], numbers, strict=True)
        if np.isfinite(value) and value > 0
    }


def _load(members: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame | None:
    """Loads the curves, or returns None if a column is not stored or has no number."""
    try:
        curves: pd.DataFrame = members.curves.load(columns)
    except (AttributeError, ConfigError):  # a table that was not loaded from runs has no curves
        return None
    there = all(np.isfinite(curves[name].to_numpy(dtype=np.float64)).any() for name in columns)
    return curves if there and len(curves) else None


def _moving(member: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns the observations after the start in which the column was measured, each t once."""
    looked = member[np.isfinite(member[column].astype(float)) & (member["t"] > 0)]
    return looked.sort_values("t", kind="stable").drop_duplicates("t")
