"""Curves y(x) of networks of different widths, checked, with the errors of their points over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.scan_data import ScanData, checked_scan
from lazy_lightning.analysis.seeds import Floats, covariance_of_means, seed_means
from lazy_lightning.errors import AnalysisError

_LEAST_SEEDS = 2
_PRIOR_DOF = 10.0
"""As if the mean variance of the curve were known from this many degrees of freedom."""


class Curve(NamedTuple):
    """What networks of one width have measured."""

    h: float
    """The width."""
    x: ArrayLike
    """(k,) positive."""
    y: ArrayLike
    """(k, s) positive, NaN where a seed is missing."""


class KnownCurve(NamedTuple):
    """A curve in logarithms: its means over seeds and their errors.

    The variance that few seeds show at one point is mostly chance, and a point where it is small by chance would weigh
    far too much. So it is drawn towards the mean over the curve: (s - 1) parts of its own to 10 of the mean.
    """

    log_h: float
    u: Floats
    """(k,) log x, ascending."""
    values: Floats
    """(k, s) log y."""
    mean: Floats
    """(k,) of log y over seeds."""
    variance: Floats
    """(k,) of the mean."""
    covariance: Floats
    """(k - 1,) between the means of neighbours: seeds are common to all points."""


def known_curves(curves: Sequence[Curve]) -> list[KnownCurve]:
    """The curves in ascending width.

    Points that one seed alone has reached are left out.

    Raises:
        AnalysisError: fewer than two widths, one that stands twice or is not positive, fewer than two points or seeds
            in a curve, seeds that are all equal, or what :func:`checked_scan` refuses.
    """
    widths = [float(curve.h) for curve in curves]
    if len(widths) < 2 or len(set(widths)) < len(widths):
        raise AnalysisError(f"The widths are {widths}, expected two at least and each once: put seeds into one curve.")
    if not all(np.isfinite(h) and h > 0 for h in widths):
        raise AnalysisError(f"The widths are {widths}, expected positive numbers.")
    return [_known(curve) for curve in sorted(curves, key=lambda curve: float(curve.h))]


def _known(curve: Curve) -> KnownCurve:
    try:
        sweep = checked_scan(curve.x, curve.y, positive=True, least_seeds=_LEAST_SEEDS)
        _check(sweep)
    except AnalysisError as error:
        raise AnalysisError(f"Curve of h = {curve.h:g}: {error}") from None
    values = np.log(sweep.y)
    variance = _drawn_to_mean(covariance_of_means(values, values), sweep.seeds)
    # Seeds that are missing at one of two neighbours may make their covariance larger than is possible.
    largest = np.sqrt(variance[1:] * variance[:-1])
    covariance = np.nan_to_num(covariance_of_means(values[1:], values[:-1]))
    covariance = _drawn_to_mean(covariance, sweep.seeds).clip(-largest, largest)
    log_h = float(np.log(float(curve.h)))
    return KnownCurve(log_h, np.log(sweep.x), values, seed_means(values), variance, covariance)


def _drawn_to_mean(variances: Floats, seeds: int) -> Floats:
    own = seeds - 1
    drawn: Floats = (own * variances + _PRIOR_DOF * variances.mean()) / (own + _PRIOR_DOF)
    return drawn


def _check(sweep: ScanData) -> None:
    if sweep.seeds < _LEAST_SEEDS:
        raise AnalysisError(f"it has {sweep.seeds} seeds, expected two at least: a collapse is judged by their spread.")
    if len(sweep.x) < 2:
        raise AnalysisError(f"it has {len(sweep.x)} points with two seeds, expected two at least: add some.")
    if (np.nanmax(sweep.y, axis=1) == np.nanmin(sweep.y, axis=1)).all():
        raise AnalysisError(
            "all its seeds are equal at every point, so there is no error to judge by: use different seeds."
        )
