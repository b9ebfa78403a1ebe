"""Measured numbers of the claims on what happens while a loss falls: the kernel on the way, and grokking.

A time, or a quantity of the kernel, is read off where a loss has first fallen to a share of its start, interpolated
between observations linearly in both logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.cost_of_laziness import at_alpha
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError, ConfigError
from lazy_lightning.figures.across_widths import interpolated
from lazy_lightning.figures.column_words import not_followed
from lazy_lightning.figures.flow_average import ascending
from lazy_lightning.figures.kernel_evolution import LABELS, NORM
from lazy_lightning.figures.sweep_table import WidthCurve, finished, width_curves

TRAIN, TEST = "train/loss", "test/loss"
FITTED = 0.1
"""The share of its start below which a loss counts as learnt."""
_MEASURED = "_measured"

OfMember = Callable[[pd.DataFrame], float]
"""A number of one member, from its observations in order."""


def share_of_alignment(alpha: float, share: float) -> Measure:
    """Measures the share of the rise of the kernel's alignment with the labels that precedes a fall of the train loss.

    The rise is that from w0 to the largest alignment in training.

    Args:
        alpha: the scale.
        share: the train loss over its start.
    """
    return _at(alpha, [TRAIN, LABELS], lambda member: _share_of_rise(member, LABELS, share))


def alignment_ahead_of_norm(alpha: float, share: float) -> Measure:
    """Measures the same minus the share of the growth of the logarithm of the kernel's norm."""

    def ahead(member: pd.DataFrame) -> float:
        return _share_of_rise(member, LABELS, share) - _share_of_rise(member, NORM, share, np.log)

    return _at(alpha, [TRAIN, LABELS, NORM], ahead)


def last_kernel_minus_first(column: str, alphas: Sequence[float], factor: float = 1.0) -> Measure:
    """Measures a column of regression with the kernel, at the end of training minus at w0, times ``factor``."""

    def difference(member: pd.DataFrame) -> float:
        return factor * float(member[column].iloc[-1] - member[column].iloc[0])

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        curve = _curve(runs, [column], difference, alphas)
        return [Measurement.mean(at_alpha(curve, alpha), f"alpha = {alpha:g}") for alpha in alphas]

    return measure


def delay(alpha: float) -> Measure:
    """Measures the time at which the test loss has fallen to a tenth over that of the train loss."""
    return _at(alpha, [TRAIN, TEST], _delay)


def delay_over_rich_one(alphas: Sequence[float], rich: float) -> Measure:
    """Measures log10 of the delay at each alpha over that at a smaller one, paired over draws.

    Of a lazy network whose test loss has not fallen so far by the end of its training, the end is taken in place of
    this time, so that the delay is a lower bound.
    """

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        start = at_alpha(_curve(runs, [TRAIN, TEST], _delay, [rich]), rich)
        curve = _curve(runs, [TRAIN, TEST], _least_delay, alphas)
        return [Measurement.mean(np.log10(at_alpha(curve, alpha) / start), f"alpha = {alpha:g}") for alpha in alphas]

    return measure


def _delay(member: pd.DataFrame) -> float:
    test, train = (_where_fallen(member, "t", loss, FITTED) for loss in (TEST, TRAIN))
    return test / train


def _least_delay(member: pd.DataFrame) -> float:
    """Returns the delay of one member, with the end of its training if the test loss has not fallen so far."""
    known = _delay(member)
    return known if known == known else float(member["t"].iloc[-1]) / _where_fallen(member, "t", TRAIN, FITTED)


def _share_of_rise(member: pd.DataFrame, column: str, share: float, unit: Callable[[float], float] = float) -> float:
    """Returns the rise of a column until the train loss has fallen to a share of its start, over its largest rise."""
    start, top = unit(float(member[column].iloc[0])), unit(float(member[column].max()))
    if top == start:
        raise AnalysisError(f"{column} does not rise above its start in training")
    return (unit(_where_fallen(member, column, TRAIN, share)) - start) / (top - start)


def _where_fallen(member: pd.DataFrame, column: str, loss: str, share: float) -> float:
    """Returns a column of one member where a loss has first fallen to a share of its start; NaN if it never has."""
    fall = float(member[loss].iloc[0]) / member[loss].to_numpy(dtype=np.float64)
    value = member[column].to_numpy(dtype=np.float64)
    there = np.isfinite(fall) & np.isfinite(value) & (member["t"] > 0).to_numpy()
    return interpolated(*ascending(fall[there], value[there]), 1 / share)


def _at(alpha: float, columns: Sequence[str], of_member: OfMember) -> Measure:
    def measure(runs: pd.DataFrame) -> list[Measurement]:
        return [Measurement.mean(at_alpha(_curve(runs, columns, of_member, [alpha]), alpha))]

    return measure


def _curve(runs: pd.DataFrame, columns: Sequence[str], of_member: OfMember, alphas: Sequence[float]) -> WidthCurve:
    """Returns a number of each finished member of some alphas.

    Raises:
        AnalysisError: the columns were not followed, there are several widths, or a member has no number: a mean over
            the others would be biased.
    """
    rows = finished(runs)
    rows = rows[np.isclose(rows["alpha"].to_numpy(dtype=np.float64)[:, None], alphas, rtol=1e-6).any(axis=1)]
    try:
        curves: pd.DataFrame = rows.curves.load(columns)
    except (AttributeError, ConfigError):  # a table that was not loaded from runs has no curves
        raise AnalysisError(not_followed(columns)) from None
    ordered = curves.sort_values("observation", kind="stable")
    numbers = {str(name): of_member(member) for name, member in ordered.groupby("id")}
    values: Floats = np.array([numbers.get(str(name), np.nan) for name in rows["id"]])
    if not np.isfinite(values).all():
        raise AnalysisError(
            f"{int((~np.isfinite(values)).sum())} of {len(rows)} networks have no number, because their losses have "
            "not fallen so far, or had by the first measurement: train longer, or measure earlier"
        )
    found = width_curves(rows.assign(**{_MEASURED: values}), _MEASURED)
    if len(found) > 1:
        raise AnalysisError(f"the runs have {len(found)} widths, expected one")
    return found[0]
