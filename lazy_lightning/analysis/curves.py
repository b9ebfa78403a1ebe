"""Curves y(x) of networks of different widths: validation, and errors of the points over seeds."""

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
"""Weight of the mean variance of the curve, as a number of degrees of freedom."""


class Curve(NamedTuple):
    """The measurements of networks of one width."""

    h: float
    """The width."""
    x: ArrayLike
    """Points (k,), positive."""
    y: ArrayLike
    """Measurements (k, s), positive, NaN where a seed is missing."""


class KnownCurve(NamedTuple):
    """A curve in logarithms, with its means over seeds and their errors.

    The variance over a few seeds at one point is very uncertain, and a point at which it is small by chance would have
    too much weight. Therefore it is averaged with the mean variance of the curve, with weights (s - 1) and 10.
    """

    log_h: float
    """The logarithm of the width."""
    u: Floats
    """log x (k,), in ascending order."""
    values: Floats
    """log y (k, s)."""
    mean: Floats
    """Means (k,) of log y over seeds."""
    variance: Floats
    """Variances (k,) of the means."""
    covariance: Floats
    """Covariances (k - 1,) of the means of neighbouring points, which have common seeds."""


def known_curves(curves: Sequence[Curve]) -> list[KnownCurve]:
    """Returns the curves with their errors, in ascending order of widths.

    Points with a single seed are left out.

    Raises:
        AnalysisError: there are fewer than two widths, a width occurs twice or is not positive, a curve has fewer than
            two points or seeds, all of its seeds are equal, or :func:`checked_scan` raises.
    """
    widths = [float(curve.h) for curve in curves]
    if len(widths) < 2 or len(set(widths)) < len(widths):
        raise AnalysisError(f"The widths are {widths}, expected two at least, each once: put seeds into one curve.")
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
    variance = _shrunk_to_mean(covariance_of_means(values, values), sweep.seeds)
    # With seeds missing at one of two neighbours, the estimated covariance may exceed its upper bound.
    largest = np.sqrt(variance[1:] * variance[:-1])
    covariance = np.nan_to_num(covariance_of_means(values[1:], values[:-1]))
    covariance = _shrunk_to_mean(covariance, sweep.seeds).clip(-largest, largest)
    log_h = float(np.log(float(curve.h)))
    return KnownCurve(log_h, np.log(sweep.x), values, seed_means(values), variance, covariance)


def _shrunk_to_mean(variances: Floats, seeds: int) -> Floats:
    own = seeds - 1
    shrunk: Floats = (own * variances + _PRIOR_DOF * variances.mean()) / (own + _PRIOR_DOF)
    return shrunk


def _check(sweep: ScanData) -> None:
    if sweep.seeds < _LEAST_SEEDS:
        raise AnalysisError(f"it has {sweep.seeds} seeds, expected two at least, because errors are over seeds.")
    if len(sweep.x) < 2:
        raise AnalysisError(f"it has {len(sweep.x)} points with two seeds, expected two at least: add some.")
    if (np.nanmax(sweep.y, axis=1) == np.nanmin(sweep.y, axis=1)).all():
        raise AnalysisError(
            "all its seeds are equal at every point, so there is no error over seeds: use different seeds."
        )
