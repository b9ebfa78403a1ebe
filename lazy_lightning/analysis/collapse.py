"""Do curves of different widths h fall on one another when plotted against h^a x, and for which a?

A quality as in J. Houdayer, A. K. Hartmann, *Low-temperature behavior of two-dimensional Gaussian Ising spin glasses*,
doi:10.1103/PhysRevB.70.014418, in logarithms and with seeds that are common to all x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lazy_lightning.analysis.curves import Curve, KnownCurve, known_curves
from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.overlap import Overlap, overlap
from lazy_lightning.analysis.seeds import Floats, error_over_resamples, resampled_means
from lazy_lightning.errors import AnalysisError

_STEP = 0.01
"""Of the exponents looked at; a parabola through three of them finds the minimum in between."""
_RESOLUTION = 1e-3
"""What that parabola is worth: curves that are interpolated linearly have kinks."""
_ENOUGH = 3
"""Comparisons in which each curve must have a part."""


class Quality(NamedTuple):
    """How well curves fall on one another."""

    value: float
    """The mean squared difference in units of its error over seeds: about 1 if they do, large if not."""
    rms_decades: float
    """The root mean squared difference of log10 y: does not know of errors."""
    points: int
    """How many points have been compared with other curves."""

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.rms_decades:.2g} decades rms, {self.points} points)"


class Exponent(NamedTuple):
    """The a at which curves fall best on one another against h^a x."""

    value: float
    error: float
    """Over seeds, and from what the curves differ by more than seeds let them. Two of it cover in 95 %."""
    quality: float
    """At that a: a value is found also where nothing collapses, so look at this."""
    rms_decades: float

    def __str__(self) -> str:
        return with_error(self.value, self.error)


def collapse_quality(curves: Sequence[Curve], *, exponent: float = 0.0) -> Quality:
    """How well the curves fall on one another against h^exponent x.

    The mean of (y - Y)^2/(dy^2 + dY^2) over all points and all other curves that reach over them, in log y: Y is the
    other curve interpolated linearly in both logarithms, dy and dY are standard errors over seeds, dY with the
    covariance of the neighbours (:class:`~lazy_lightning.analysis.curves.KnownCurve` says how they are estimated).

    It is about 1 if the curves are one. If a seed moves a whole curve it fluctuates as one number squared does, however
    many points there are, and its mean is that of Student's t^2: 2 for two curves of three seeds, 1.3 for five. Where a
    curve bends by more than its error between two points, the linear interpolation adds to it.

    Args:
        curves: of two widths at least, each with two seeds at least.
        exponent: 0 takes x as it is given.

    Raises:
        AnalysisError: curves that do not overlap, or what :func:`known_curves` refuses.

    >>> x = np.array([0.1, 1.0, 10.0])
    >>> seeds = np.array([0.9, 1.0, 1.1])
    >>> curves = [Curve(h, x, seeds / (np.sqrt(h) * x[:, None])) for h in (16.0, 25.0)]
    >>> round(collapse_quality(curves).rms_decades, 4)  # log10(5/4)
    0.0969
    """
    known = known_curves(curves)
    compared = overlap(known, exponent)
    if compared.comparisons.min() < _ENOUGH:
        raise AnalysisError(_no_overlap(known, compared, f"h^{exponent:.3g} x"))
    return _quality(known, compared)


def collapse_exponent(
    curves: Sequence[Curve], *, bounds: tuple[float, float] = (-1.0, 2.0), resamples: int = 1000, seed: int = 0
) -> Exponent:
    """The a in ``bounds`` that minimises :func:`collapse_quality`.

    Exponents at which the curves overlap in less than half as many points as they could are not looked at: far apart,
    few points agree by chance.

    The square of the error is the sum of two. One is by bootstrap over whole columns, each curve by itself: half the
    width of the central 68 % of the resampled exponents, widened for few seeds. The other is of curves that do not
    collapse within their errors, quality Q > 1, taking each curve to be off as a whole: half the width of the exponents
    whose quality is below Q + (Q - 1)/(curves - 1). It is infinite if all exponents to one side are as good. A
    resolution of 0.001 is added.

    Args:
        curves: of two widths at least, each with two seeds at least.
        bounds: between which to look.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        AnalysisError: the best exponent is at the end of what could be looked at, curves that do not overlap, or what
            :func:`known_curves` refuses.

    >>> x, rng = np.logspace(-2, 2, 9)[:, None], np.random.default_rng(0)
    >>> curves = [Curve(h, x[:, 0], np.exp(0.1 * rng.normal(size=(9, 5))) / (1 + h**0.5 * x)) for h in (30, 100, 300)]
    >>> print(collapse_exponent(curves))
    0.507 ± 0.013
    """
    known = known_curves(curves)
    exponents = _exponents(bounds)
    rng = np.random.default_rng(seed)
    resampled = [resampled_means(curve.values, resamples=resamples, rng=rng) for curve in known]
    means = np.concatenate([_means(known)[None], np.concatenate(resampled, axis=1)])
    qualities = _qualities(known, exponents, means)
    found = minima(exponents, qualities)
    value = float(found[0])
    if not math.isfinite(value):
        raise AnalysisError(
            f"The collapse is best at the {'largest' if value > 0 else 'smallest'} exponent that the bounds "
            f"{bounds} and the curves' overlap allow: widen the bounds or the sweeps, or there is no such exponent."
        )
    quality = _quality(known, overlap(known, value))
    error = error_over_resamples(found[1:], sum(curve.values.shape[1] - 1 for curve in known))
    misfit = _half_width(exponents, qualities[0], max(0.0, quality.value - 1) / (len(known) - 1))
    return Exponent(value, math.hypot(error, misfit, _RESOLUTION), quality.value, quality.rms_decades)


def minima(at: Floats, values: Floats) -> Floats:
    """Where each row of values (r, n) over equally spaced ``at`` (n,) is smallest, (r,): by a parabola through three.

    Infinite values are none. Rows that are smallest at the first or last finite value give -inf or inf.

    >>> minima(np.array([0.0, 1.0, 2.0, 3.0]), np.array([[4.0, 1.0, 2.0, np.inf], [3.0, 2.0, 1.0, np.inf]]))
    array([1.25, inf])
    """
    padded = np.pad(values, ((0, 0), (1, 1)), constant_values=np.inf)
    best = values.argmin(axis=1)
    left, middle, right = (np.take_along_axis(padded, best[:, None] + i, axis=1)[:, 0] for i in range(3))
    inside = np.isfinite(left) & np.isfinite(right)
    fall, rise = (np.where(inside, side, middle + 1) - middle for side in (left, right))
    shift = np.divide(fall - rise, 2 * (fall + rise), out=np.zeros(len(values)), where=fall + rise > 0)
    ends = np.where(np.isfinite(left), np.inf, -np.inf)
    found: Floats = np.where(inside, at[best] + shift * (at[1] - at[0]), ends)
    return found


def _half_width(at: Floats, values: Floats, rise: float) -> float:
    """Half the width of the exponents whose value is at most ``rise`` above the smallest; inf if that is at an end."""
    finite = np.isfinite(values)
    at, values = at[finite], values[finite]
    low = values <= values.min() + rise
    first, last = np.flatnonzero(low)[[0, -1]]
    return math.inf if first == 0 or last == len(at) - 1 else float(at[last] - at[first]) / 2


def _exponents(bounds: tuple[float, float]) -> Floats:
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and high - low >= 2 * _STEP):
        raise AnalysisError(
            f"bounds are {bounds}, expected two finite numbers, the second larger by {2 * _STEP} at least."
        )
    return np.linspace(low, high, 1 + math.ceil((high - low) / _STEP))


def _qualities(known: Sequence[KnownCurve], exponents: Floats, means: Floats) -> Floats:
    """The quality of each row of means at each exponent, (r, exponents); inf where the overlap is not enough."""
    overlaps = [overlap(known, float(exponent)) for exponent in exponents]
    sizes = np.array([len(compared.point) for compared in overlaps])
    allowed = [
        compared.comparisons.min() >= _ENOUGH and len(compared.point) >= sizes.max() / 2 for compared in overlaps
    ]
    if not any(allowed):
        raise AnalysisError(_no_overlap(known, overlaps[int(sizes.argmax())], "any h^a x within the bounds"))
    missing = np.full(len(means), np.inf)
    columns = [compared.quality(means) if on else missing for compared, on in zip(overlaps, allowed, strict=True)]
    return np.stack(columns, axis=1)


def _means(known: Sequence[KnownCurve]) -> Floats:
    return np.concatenate([curve.mean for curve in known])


def _quality(known: Sequence[KnownCurve], compared: Overlap) -> Quality:
    differences = compared.differences(_means(known))
    rms = math.sqrt(float((differences**2).mean())) / math.log(10)
    return Quality(float(compared.quality(_means(known))), rms, len(np.unique(compared.point)))


def _no_overlap(known: Sequence[KnownCurve], compared: Overlap, against: str) -> str:
    alone = known[int(compared.comparisons.argmin())]
    low, high = np.exp(alone.u[[0, -1]])
    return (
        f"The curve of h = {np.exp(alone.log_h):g}, x from {low:g} to {high:g}, is compared with the others at "
        f"{compared.comparisons.min()} points against {against}, expected {_ENOUGH} at least: extend the sweeps."
    )
