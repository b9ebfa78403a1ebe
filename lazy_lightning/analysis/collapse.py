"""Collapse of curves of different widths h when plotted against h^a x: its quality, and the exponent a.

The quality is that of J. Houdayer, A. K. Hartmann, *Low-temperature behavior of two-dimensional Gaussian Ising spin
glasses*, doi:10.1103/PhysRevB.70.014418, in logarithms and with seeds that are common to all x.
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
"""Spacing of the exponents in the search; the minimum is that of a parabola through three of them."""
_RESOLUTION = 1e-3
"""Accuracy of that parabola, which is limited by the kinks of linearly interpolated curves."""
_ENOUGH = 3
"""Minimal number of comparisons that involve each curve."""


class Quality(NamedTuple):
    """The quality of a collapse of curves."""

    value: float
    """The mean squared difference in units of its error over seeds: about 1 for a collapse, large without one."""
    rms_decades: float
    """The root mean squared difference of log10 y, without regard to errors."""
    points: int
    """Number of points that were compared with other curves."""

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.rms_decades:.2g} decades rms, {self.points} points)"


class Exponent(NamedTuple):
    """The exponent a of the best collapse of curves against h^a x."""

    value: float
    """The exponent."""
    error: float
    """Standard error from the seeds and from differences of the curves beyond the seeds; two of it cover in 95 %."""
    quality: float
    """Quality of the collapse at this exponent; check it, because an exponent is found even without a collapse."""
    rms_decades: float
    """Root mean squared difference of log10 y at this exponent."""

    def __str__(self) -> str:
        return with_error(self.value, self.error)


def collapse_quality(curves: Sequence[Curve], *, exponent: float = 0.0) -> Quality:
    """Returns the quality of the collapse of curves against h^exponent x.

    It is the mean of (y - Y)^2/(dy^2 + dY^2) over all points and all other curves that extend over them, in log y. Y is
    the other curve interpolated linearly in both logarithms; dy and dY are standard errors over seeds, dY with the
    covariance of the neighbours (see :class:`~lazy_lightning.analysis.curves.KnownCurve` for their estimates).

    It is about 1 if the curves coincide. If a seed shifts a whole curve, it fluctuates like the square of one number,
    for any number of points, and its mean is that of Student's t^2: 2 for two curves of three seeds, 1.3 for five. The
    linear interpolation increases it where a curve bends by more than its error between two points.

    Args:
        curves: curves of at least two widths, each with at least two seeds.
        exponent: the exponent; 0 compares the curves against x.

    Raises:
        AnalysisError: the curves do not overlap, or :func:`known_curves` raises.

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
    """Returns the exponent a in ``bounds`` that minimises :func:`collapse_quality`.

    Exponents for which the number of overlapping points is less than half of its maximum are excluded, because a few
    points may agree by chance.

    The squared error is the sum of two contributions. The first is from a bootstrap over whole columns, separately for
    each curve: half the width of the central 68 % of the resampled exponents, widened for few seeds. The second is from
    curves that do not collapse within their errors, quality Q > 1, under the assumption that each curve is shifted as a
    whole: half the width of the exponents whose quality is below Q + (Q - 1)/(curves - 1). It is infinite if all
    exponents to one side are as good. A resolution of 0.001 is added.

    Args:
        curves: curves of at least two widths, each with at least two seeds.
        bounds: interval of the search.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        AnalysisError: the best exponent is at an end of the search interval, the curves do not overlap, or
            :func:`known_curves` raises.

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
    """Returns the minimum (r,) of each row of values (r, n) at equally spaced ``at`` (n,), from a parabola.

    The parabola passes through the smallest value and its neighbours. Infinite values are ignored. A row whose smallest
    value is its first or last finite value gives -inf or inf.

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
    """Returns half the width of the region with values up to ``rise`` above the minimum; inf if it reaches an end."""
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
    """Returns the quality (r, exponents) of each row of means at each exponent; inf where the overlap is too small."""
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
