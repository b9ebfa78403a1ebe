"""The plane of width and scale: kernel drift, performance, and the line alpha*(h), or gamma*(h) if gamma is stated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.analysis import Crossing, PowerLaw, crossing, power_law_of_points
from lazy_lightning.analysis.number_format import within_factor
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.asymptotic_regions import DRIFT
from lazy_lightning.figures.marks import legend_above
from lazy_lightning.figures.quantity import LOSS, Quantity, performance
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_symbol, scale_title, scale_word
from lazy_lightning.figures.stated_scale import scale_value
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import WidthCurve, error_words, has, seeds_phrase, unfinished_note, width_curves

LEVEL = 0.5
"""Level of the drift that defines alpha*."""
DRIFT_LABEL = r"kernel drift $\Vert \Delta\Theta \Vert / \Vert \Theta_0 \Vert$"
_SAME = 1e-6
_ALONE = 10**0.5
"""Height of a cell without neighbours, as a factor."""


class Star(NamedTuple):
    """The crossing alpha* of one width."""

    h: float
    at: Crossing
    """In alpha."""

    @property
    def value(self) -> float:
        """The stated quantity there."""
        return scale_value(self.h, self.at.value, own="alpha")

    @property
    def error(self) -> float:
        """The standard error of the value; its relative error is that of alpha*."""
        return self.value * self.at.error / self.at.value


class _Plane(NamedTuple):
    curves: Sequence[WidthCurve]
    colours: list[NDArray[np.float64]]
    """Value of the colour for each alpha of each curve."""
    norm: Normalize
    label: str


def phase_diagram(runs: pd.DataFrame) -> ReportFigure:
    """Draws kernel drift and test error over (h, alpha), with alpha* at a drift of 1/2, and its power law in h.

    The vertical axis is the quantity that :func:`~lazy_lightning.figures.stated_scale.stated_scale` selects, alpha
    without it.

    Raises:
        AnalysisError: there are fewer than two widths, or the drift was not observed.
    """
    curves = [
        curve.positive() for curve in width_curves(runs, DRIFT) if curve.h == curve.h and (curve.values > 0).any()
    ]
    if len(curves) < 2:
        raise AnalysisError(
            f"a phase diagram needs two widths at least with a kernel that has moved, got {len(curves)}: sweep "
            "model.network.width too"
        )
    stars = _stars(curves)
    law = _law(stars)
    planes = [_drift_plane(curves), *_performance_plane(runs)]
    with paper_style():
        figure = Figure(figsize=(3.5 * len(planes), 3.3))
        axes = figure.subplots(1, len(planes), sharey=True, squeeze=False)[0]
        for axis, plane in zip(axes, planes, strict=True):
            _draw(figure, axis, plane)
            _draw_stars(axis, stars, law)
        axes[0].set_ylabel(scale_title(curves[0].h, own="alpha"))
        legend_above(figure, axes[0])
    caption = (
        f"Kernel drift (geometric mean) and performance (mean) over {seeds_phrase(curves)} at the widths h and scales "
        f"{scale_word(curves[0].h, own='alpha')} of the sweep; dots: points; bars of {_star_word()}: "
        f"{error_words(curves)}. {_sentence(stars, law)}{unfinished_note(runs)}"
    )
    return ReportFigure(
        "phase_diagram", "Phase diagram", caption, figure, _table(runs, curves, stars), _findings(stars, law)
    )


def edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the edges (k + 1,) of cells around ascending positive centres (k,): their geometric midpoints.

    The outer edges are at the same distances from the first and last centre as the inner ones.

    >>> edges(np.array([1.0, 4.0, 16.0]))
    array([ 0.5,  2. ,  8. , 32. ])
    """
    if len(centres) == 1:
        return np.array([centres[0] / _ALONE**0.5, centres[0] * _ALONE**0.5])
    middles = np.sqrt(centres[1:] * centres[:-1])
    ends = centres[0] ** 2 / middles[0], centres[-1] ** 2 / middles[-1]
    return np.concatenate([ends[:1], middles, ends[1:]])


def _stars(curves: Sequence[WidthCurve]) -> list[Star]:
    stars = []
    for curve in curves:
        try:
            stars.append(Star(curve.h, crossing(curve.alpha, curve.values, LEVEL)))
        except AnalysisError:  # the sweep does not reach alpha*
            continue
    return stars


def _law(stars: Sequence[Star]) -> PowerLaw | None:
    h, values = [star.h for star in stars], [star.value for star in stars]
    errors = np.array([star.error for star in stars])
    known = bool(len(errors)) and bool((np.isfinite(errors) & (errors > 0)).all())
    try:
        return power_law_of_points(h, values, errors if known else None)
    except AnalysisError:
        return None


def _drift_plane(curves: Sequence[WidthCurve]) -> _Plane:
    drifts = [curve.log_band().mean for curve in curves]
    norm = LogNorm(*_span(drifts))
    return _Plane(curves, drifts, norm, DRIFT_LABEL)


def _performance_plane(runs: pd.DataFrame) -> list[_Plane]:
    quantity = performance(runs)
    curves = _performances(runs, quantity)
    if not curves:
        return []
    values = [curve.band(quantity.factor).mean for curve in curves]
    low, high = _span(values)
    norm = LogNorm(low, high) if quantity is LOSS and low > 0 and high > 10 * low else Normalize(low, high)
    return [_Plane(curves, values, norm, quantity.label)]


def _performances(runs: pd.DataFrame, quantity: Quantity) -> list[WidthCurve]:
    found = width_curves(runs, quantity.column) if has(runs, quantity.column) else []
    return [curve for curve in found if curve.h == curve.h]


def _span(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Returns the smallest and the largest value, widened by a tenth to both sides if all are equal."""
    every = np.concatenate(values)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    return (low, high) if high > low * (1 + _SAME) else (low / 1.1, high * 1.1 if high else 1.0)


def _draw(figure: Figure, axis: Axes, plane: _Plane) -> None:
    """Draws separate cells for each width, because the widths may have different scales."""
    sides = edges(np.array([curve.h for curve in plane.curves]))
    scales = [_scales(curve) for curve in plane.curves]
    heights = [edges(np.sort(scale)) for scale in scales]
    style: dict[str, Any] = {"norm": plane.norm, "cmap": mpl.colormaps["cividis"], "rasterized": True}
    for i, (curve, colours) in enumerate(zip(plane.curves, plane.colours, strict=True)):
        ascending = colours[np.argsort(scales[i])]
        mesh = axis.pcolormesh(sides[i : i + 2], heights[i], np.ma.masked_invalid(ascending)[:, None], **style)
        places = scales[i][np.isfinite(colours)]
        axis.plot(np.full(len(places), curve.h), places, "o", mfc="white", mec="black", ms=2, mew=0.4)
    bar = figure.colorbar(mesh, ax=axis, pad=0.02)
    low, high = bar.ax.get_ylim()
    if plane.label == DRIFT_LABEL and low < LEVEL < high:
        bar.ax.axhline(LEVEL, color="white", lw=1.5)
    axis.set(xscale="log", yscale="log", xlabel="$h$", title=plane.label, xlim=(sides[0], sides[-1]))
    axis.set_ylim(min(ends[0] for ends in heights), max(ends[-1] for ends in heights))
    shown = _apart([curve.h for curve in plane.curves])
    axis.set_xticks(shown, [f"{h:g}" for h in shown])
    axis.xaxis.minorticks_off()
    axis.grid(False)


def _scales(curve: WidthCurve) -> NDArray[np.float64]:
    """Returns the stated quantity at each alpha of a curve, (k,)."""
    return np.array([scale_value(curve.h, alpha, own="alpha") for alpha in curve.alpha.tolist()])


def _apart(widths: Sequence[float]) -> list[float]:
    """Selects ascending widths whose labels do not overlap on a log axis."""
    least = 0.1 * np.log(widths[-1] / widths[0])
    shown = [widths[0]]
    for h in widths[1:]:
        if np.log(h / shown[-1]) >= least:
            shown.append(h)
    return shown


def _draw_stars(axis: Axes, stars: Sequence[Star], law: PowerLaw | None) -> None:
    if not stars:
        return
    h = np.array([star.h for star in stars])
    errors = np.array([star.at.log10_error for star in stars])
    errors = np.where(np.isfinite(errors), errors, 0.0)
    values = np.array([star.value for star in stars])
    bars = np.stack([values - values * 10**-errors, values * 10**errors - values])
    symbol = scale_symbol(stars[0].h, own="alpha")
    star = f"({symbol})^*" if " " in symbol or "," in symbol else f"{symbol}^*"
    label = f"${star}$: drift $= {LEVEL}$"
    axis.errorbar(h, values, bars, fmt="o", color="black", mfc="white", ms=5, capsize=2.5, lw=1.0, label=label)
    if law is not None:
        ends = np.array([h.min(), h.max()])
        exponent = rf"${star} \sim h^{{-a}}$, $a = {round(-law.slope, 2) + 0.0:.2f} \pm {law.error:.2f}$"
        axis.plot(ends, law.at(ends), "-", color="white", lw=2.4)
        axis.plot(ends, law.at(ends), "--", color="black", lw=1.2, label=exponent)


def _sentence(stars: Sequence[Star], law: PowerLaw | None) -> str:
    if law is not None:
        return (
            f"Open circles: {_star_word()}, where the drift is {LEVEL}, interpolated between trained alphas; it goes "
            f"as h^({law}), fitted to {law.points} widths."
        )
    if stars:
        return (
            f"Open circles: {_star_word()}, where the drift is {LEVEL}, interpolated between trained alphas, found at "
            f"{len(stars)} widths: too few for an exponent, which needs three."
        )
    return f"The drift crosses {LEVEL} at no width within the sweep."


def _star_word() -> str:
    """Returns the name of the crossing in the stated quantity: ``alpha*``."""
    word = scale_word(1.0, own="alpha")
    return f"({word})*" if " " in word else f"{word}*"


def _findings(stars: Sequence[Star], law: PowerLaw | None) -> dict[str, str]:
    findings = {f"{_star_word()}, h = {star.h:g}": within_factor(star.value, star.at.log10_error) for star in stars}
    if law is not None:
        findings[f"exponent of {_star_word()} against h"] = f"{law} ({law.points} widths)"
    return findings


def _table(runs: pd.DataFrame, curves: Sequence[WidthCurve], stars: Sequence[Star]) -> pd.DataFrame:
    quantity = performance(runs)
    parts = [curve.long(quantity=DRIFT, mean=curve.log_band().mean) for curve in curves]
    parts += [
        curve.long(quantity=quantity.column, mean=curve.band(quantity.factor).mean)
        for curve in _performances(runs, quantity)
    ]
    rows = [
        {"h": s.h, "alpha": s.at.value, "sqrt_h_alpha": s.h**0.5 * s.at.value, "quantity": "alpha*", "mean": LEVEL,
         "alpha_error": s.at.error, "log10_alpha_error": s.at.log10_error, "interpolated": True} for s in stars
    ]  # fmt: skip
    return pd.concat(parts + [pd.DataFrame(rows)] * bool(rows), ignore_index=True)
