"""Curves of a sweep: for each width, a column of the table of runs against alpha with the values of each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis.seeds import mean_and_error
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.band import Band
from lazy_lightning.figures.column_words import not_measured
from lazy_lightning.figures.draws import AVERAGED, DATA, WEIGHTS, draws, training_sets
from lazy_lightning.figures.scale import ALPHA_LABEL, SCALE_LABEL

NETWORK, KERNEL_AT_INIT, KERNEL_AT_END = "network", "kernel at init", "kernel at end"


@dataclass(frozen=True)
class WidthCurve:
    """The measurements of the members of one width, in ascending order of alpha."""

    h: float
    """The width, NaN for networks without a width."""
    alpha: NDArray[np.float64]
    """Scales (k,)."""
    values: NDArray[np.float64]
    """Values (k, s) with a column for each draw, mostly a seed; NaN where one is missing."""
    seeds: tuple[int, ...]
    """The seeds (s,), or the numbers of the training sets, see :mod:`~lazy_lightning.figures.draws`."""
    over: str = WEIGHTS
    """What an error over the columns is over."""

    @property
    def scale(self) -> NDArray[np.float64]:
        """The scale sqrt(h) alpha, (k,), or alpha for networks without a width."""
        return self.alpha if self.h != self.h else np.sqrt(self.h) * self.alpha

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of seeds with a finite value at each alpha, (k,)."""
        counts: NDArray[np.int64] = np.isfinite(self.values).sum(axis=1)
        return counts

    def band(self, factor: float = 1.0) -> Band:
        """Returns the arithmetic mean over seeds and its error, times ``factor``."""
        mean, error = (factor * number for number in mean_and_error(self.values))
        return Band(mean, mean - error, mean + error)

    def positive(self) -> WidthCurve:
        """Returns the curve with NaN in place of values that are not positive."""
        return WidthCurve(self.h, self.alpha, np.where(self.values > 0, self.values, np.nan), self.seeds, self.over)

    def log_band(self) -> Band:
        """Returns the geometric mean over seeds and its error; values that are not positive are left out."""
        mean, error = mean_and_error(np.log(self.positive().values))
        with np.errstate(over="ignore"):  # the error of two seeds may exceed all numbers, which draws no band
            return Band(np.exp(mean), np.exp(mean - error), np.exp(mean + error))

    def at(self, keep: NDArray[np.bool_]) -> WidthCurve:
        """Returns the curve at some of the alphas."""
        return WidthCurve(self.h, self.alpha[keep], self.values[keep], self.seeds, self.over)

    def long(self, **columns: NDArray[Any] | float | str) -> pd.DataFrame:
        """Returns rows for the table of a figure: h, alpha, sqrt_h_alpha, number of seeds, and given columns (k,)."""
        who = {"h": self.h, "alpha": self.alpha, "sqrt_h_alpha": np.sqrt(self.h) * self.alpha, "seeds": self.counts}
        return pd.DataFrame({**who, **columns})


def width_curves(runs: pd.DataFrame, column: str, model: str = NETWORK) -> list[WidthCurve]:
    """Returns a column of the finished members of one model for each width with a finite value, in order of h.

    Raises:
        AnalysisError: no member of the model has finished, or none of them has measured the column.

    >>> runs = pd.DataFrame({"status": "finished", "model": "network", "h": 100, "alpha": [0.1, 0.1, 10.0],
    ...                      "seed": [0, 1, 0], "test/error": [0.03, 0.05, 0.02]})
    >>> (curve,) = width_curves(runs, "test/error")
    >>> curve.scale, curve.values
    (array([  1., 100.]), array([[0.03, 0.05],
           [0.02,  nan]]))
    """
    rows = observed(runs, column, model)
    return [_curve(h, of_width(rows, h), column) for h in sorted_widths(rows)]


def observed(runs: pd.DataFrame, column: str, model: str = NETWORK) -> pd.DataFrame:
    """Returns the finished members of one model with a finite value in a column.

    Raises:
        AnalysisError: there is none.
    """
    rows = finished(runs, model)
    if column not in rows or not _numbers(rows[column]).notna().any():
        raise AnalysisError(not_measured(column))
    return rows[_numbers(rows[column]).notna()]


def has(runs: pd.DataFrame, column: str, model: str = NETWORK) -> bool:
    """Returns whether a finished member of one model has a finite value in a column."""
    try:
        return not observed(runs, column, model).empty
    except AnalysisError:
        return False


def finished(runs: pd.DataFrame, model: str = NETWORK) -> pd.DataFrame:
    """Returns the finished members of one model.

    Raises:
        AnalysisError: there is none.
    """
    rows = runs[(runs["status"] == "finished") & (runs["model"] == model)]
    if rows.empty:
        raise AnalysisError(f"no member of a {model} has finished: resume the sweep, or see the reason column")
    return rows


def unfinished_note(runs: pd.DataFrame, model: str = NETWORK) -> str:
    """Returns a sentence on the members left out because they failed or have not ended; empty if there are none."""
    status = runs.loc[runs["model"] == model, "status"]
    left_out = [f"{n} {name}" for name in ("failed", "unfinished") if (n := int((status == name).sum()))]
    return f" Left out: {' and '.join(left_out)} of {len(status)} members." if left_out else ""


def seeds_phrase(curves: Sequence[WidthCurve]) -> str:
    """Describes the numbers of draws of the points, as ``3 seeds``, ``1 to 3 seeds`` or ``3 training sets``."""
    phrase = counted_seeds([int(count) for curve in curves for count in curve.counts if count > 0])
    return phrase.replace("seed", "training set") if all(curve.over in (DATA, AVERAGED) for curve in curves) else phrase


def errors_phrase(curves: Sequence[WidthCurve]) -> str:
    """States what bands and dots are, such as ``bands: standard error over seeds of the weights; dots: seeds``."""
    return f"bands: {error_words(curves)}; dots: single values"


def error_words(curves: Sequence[WidthCurve]) -> str:
    """States what an error is over, such as ``standard error over seeds of the weights, widened by Student's t``."""
    over = list(dict.fromkeys(curve.over for curve in curves))
    return f"standard error over {' or '.join(over)}, widened by Student's t"


def counted_seeds(counts: Sequence[int]) -> str:
    """Describes numbers of seeds in words.

    >>> counted_seeds([3, 3]), counted_seeds([2, 1, 3])
    ('3 seeds', '1 to 3 seeds')
    """
    if not counts:
        return "no seeds"
    least, most = min(counts), max(counts)
    if least < most:
        return f"{least} to {most} seeds"
    return f"{most} seeds" if most > 1 else "1 seed"


def named_width(h: float) -> str:
    """Describes a width in words: ``h = 100``, or ``network`` without a width."""
    return "network" if h != h else f"h = {h:g}"


def scale_label(curves: Sequence[WidthCurve]) -> str:
    """Returns the label of the axis of :attr:`WidthCurve.scale`."""
    return ALPHA_LABEL if all(curve.h != curve.h for curve in curves) else SCALE_LABEL


def widths(runs: pd.DataFrame) -> pd.Series[float]:
    """Returns the width h of each row, NaN for networks without a width."""
    return _numbers(runs["h"]) if "h" in runs else pd.Series(np.nan, index=runs.index)


def sorted_widths(runs: pd.DataFrame) -> list[float]:
    """Returns the distinct widths in ascending order, with NaN first, so that the last is the largest."""
    found = widths(runs)
    return [float("nan")] * bool(found.isna().any()) + [float(h) for h in sorted(found.dropna().unique())]


def of_width(rows: pd.DataFrame, h: float) -> pd.DataFrame:
    """Returns the rows with this width, or those without a width if h is NaN."""
    found = widths(rows)
    return rows[found.isna() if h != h else found == h]


def same_width(one: float, other: float) -> bool:
    """Returns whether two widths are equal; NaN equals NaN, for networks without a width."""
    return one == other or (one != one and other != other)


def _curve(h: float, rows: pd.DataFrame, column: str) -> WidthCurve:
    """Returns the curve of the rows; a member that occurs twice is counted once."""
    found = draws(rows)
    chosen = rows.assign(_draw=found.labels, _set=training_sets(rows))
    members = chosen.groupby(["alpha", "_draw", "seed", "_set"])[column].last()
    by_draw = members.groupby(["alpha", "_draw"]).mean().unstack("_draw").sort_index()
    values = by_draw.to_numpy(dtype=np.float64, copy=True)
    seeds = tuple(int(seed) for seed in by_draw.columns)
    return WidthCurve(h, by_draw.index.to_numpy(dtype=np.float64, copy=True), values, seeds, found.over)


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    """Converts a column to numbers, with NaN for values that are not finite numbers."""
    return pd.to_numeric(column, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
