"""The variance of F over seeds: against alpha for each width, and against h at both ends of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import PowerLaw, ensemble_statistics, power_law_of_points
from lazy_lightning.errors import AnalysisError, DataError
from lazy_lightning.figures.across_widths import common_range, interpolated, interpolated_note, is_trained
from lazy_lightning.figures.draws import training_sets
from lazy_lightning.figures.sweep_table import WidthCurve, finished, of_width, sorted_widths
from lazy_lightning.runs.load import OutputsAccessor


class VarianceCurve(NamedTuple):
    """Var F of one width against alpha, with jackknife errors."""

    curve: WidthCurve
    """The curve, with values (k, 1)."""
    errors: NDArray[np.float64]
    """Jackknife errors (k,), NaN for two seeds."""
    seeds: NDArray[np.int64]
    """Numbers of seeds (k,)."""

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance (k,) at each alpha."""
        return self.curve.values[:, 0]


class End(NamedTuple):
    """Var F against h at one sqrt(h) alpha."""

    name: str
    at: float
    h: NDArray[np.float64]
    variance: NDArray[np.float64]
    errors: NDArray[np.float64]
    trained: NDArray[np.bool_]
    """Whether each width was trained at ``at``; if not, its variance is interpolated."""

    @property
    def note(self) -> str:
        """Description of the widths at which it is interpolated; empty if there are none."""
        return interpolated_note(self.h, self.trained)

    @property
    def law(self) -> PowerLaw | None:
        """The power law in h, or None for fewer than three widths."""
        known = bool((self.errors > 0).all())
        try:
            return power_law_of_points(self.h, self.variance, self.errors if known else None)
        except AnalysisError:
            return None


def variance_curves(runs: pd.DataFrame) -> list[VarianceCurve]:
    """Returns a curve for each width with two seeds at some alpha.

    Raises:
        AnalysisError: outputs are not stored, no alpha has two seeds, or the runs have different test samples.
    """
    rows = finished(runs)
    kept = (
        [part for _, part in rows.groupby("path", sort=False) if OutputsAccessor(part).available]
        if "path" in rows
        else []
    )
    if not kept:
        raise AnalysisError(
            "the outputs of the members were not kept (outputs.safetensors), but the variance of F needs them"
        )
    rows = pd.concat(kept)
    counts = rows.assign(_set=training_sets(rows)).groupby(["h", "alpha", "_set"], dropna=False)["seed"].nunique()
    if counts.max() < 2:
        raise AnalysisError(
            "no alpha has two seeds: a variance over seeds needs two at least, --model.seeds 10 is usual"
        )
    curves = [_variance_curve(h, of_width(rows, h)) for h in sorted_widths(rows)]
    found = [curve for curve in curves if curve is not None]
    if not found:
        raise AnalysisError("the outputs do not differ between seeds: there is no variance to draw")
    return found


def _variance_curve(h: float, rows: pd.DataFrame) -> VarianceCurve | None:
    rows = rows.assign(_set=training_sets(rows))
    rows = rows.drop_duplicates(["alpha", "seed", "_set"], keep="last").reset_index(drop=True)
    try:
        outputs, labels, _ = OutputsAccessor(rows).load("test")
    except DataError as error:
        raise AnalysisError(str(error)) from error
    points = []
    for alpha, members in rows.groupby("alpha", sort=True):
        found = [
            ensemble_statistics(outputs[part.index], labels) for _, part in members.groupby("_set") if len(part) > 1
        ]
        if found and (variance := float(np.mean([part.variance for part in found]))) > 0:
            spread = math.sqrt(sum(part.variance_error**2 for part in found)) / len(found)
            points.append((float(str(alpha)), variance, spread, found[0].seeds))
    if not points:
        return None
    alpha, values, errors, seeds = np.array(points, dtype=np.float64).T
    return VarianceCurve(WidthCurve(h, alpha, values[:, None], (0,)), errors, seeds.astype(np.int64))


def variance_ends(curves: Sequence[VarianceCurve]) -> list[End]:
    """Returns the variance at the largest and the smallest sqrt(h) alpha common to at least two widths."""
    known = [curve for curve in curves if curve.curve.h == curve.curve.h]
    if len(known) < 2:
        return []
    try:
        low, high = common_range([curve.curve for curve in known], "scale")
    except AnalysisError:
        return []
    named = {"large-alpha": high} if high < low * 1.001 else {"large-alpha": high, "small-alpha": low}
    return [_end(name, at, known) for name, at in named.items()]


def _end(name: str, at: float, curves: Sequence[VarianceCurve]) -> End:
    values = [interpolated(curve.curve.scale, curve.variance, at) for curve in curves]
    relative = [
        float(np.interp(np.log(at), np.log(curve.curve.scale), curve.errors / curve.variance)) for curve in curves
    ]
    h = np.array([curve.curve.h for curve in curves])
    trained = np.array([is_trained(curve.curve, at, "scale") for curve in curves], dtype=bool)
    return End(name, at, h, np.array(values), np.array(values) * np.array(relative), trained)
