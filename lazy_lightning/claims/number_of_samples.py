"""Measured numbers of the claims on learning curves: exponents in n, and what ensembles gain, over training sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lazy_lightning.analysis import EnsembleStatistics, power_law
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.ensembles import statistics_of
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.draws import training_sets
from lazy_lightning.figures.error_by_samples import SAMPLES, SampleCurve, common_alphas, sample_curves
from lazy_lightning.figures.quantity import ERROR
from lazy_lightning.figures.scale import common_scale_words, scale_words
from lazy_lightning.figures.sweep_table import NETWORK, finished, named_width, of_width, sorted_widths
from lazy_lightning.runs.configuration import DATA_SEEDS, significant

_REMEDY = "resume the sweep, so that numbers can be paired"


def exponent_of_narrow_minus_wide(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the exponent in n of the test error of the narrowest networks minus that of the widest, at each scale.

    It is the exponent of the ratio of the two errors, which is paired over training sets.

    Raises:
        AnalysisError: there are no two widths at one scale, or their n or training sets differ.
    """
    found = []
    networks = finished(runs)
    for scale, curves in _by_scale(networks).items():
        if len(curves) > 1:
            _require_pairs(networks, curves[0], curves[-1])
            narrow, wide = curves[0].curve, curves[-1].curve
            if (narrow.values == 0).any() or (wide.values == 0).any():
                raise AnalysisError("a test error is 0, which has no exponent: take more test samples")
            law = power_law(narrow.alpha, narrow.values / wide.values)
            found.append(Measurement(law.slope, law.error, common_scale_words(scale)))
    if not found:
        raise AnalysisError("no two widths were trained at a common sqrt(h) alpha on several numbers of samples")
    return found


def variance_of_feature_over_lazy(runs: pd.DataFrame) -> list[Measurement]:
    """Measures log10 of the variance over weights at the smallest alpha over that at the largest, for each width.

    It is that of F on the test set, at the largest number of training samples, paired over training sets.

    Raises:
        AnalysisError: a width has one alpha, or its two have other training sets.
    """
    found = []
    for h in sorted_widths(finished(runs)):
        parts = [{name: one.variance for name, one in sets.items()} for _, sets in _largest_sets(runs, h)]
        if len(parts) < 2 or parts[0].keys() != parts[1].keys():
            raise AnalysisError(
                f"networks of {named_width(h)} have not finished at two alphas on the same training sets: {_REMEDY}"
            )
        feature, lazy = (np.array(list(part.values())) for part in parts)
        found.append(Measurement.mean(np.log10(feature / lazy), named_width(h)))
    return found


def gain_over_training_sets(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the mean test error of the members minus that of their average, in percent, at each width and scale.

    It is that of the largest number of training samples; the members of an average have one training set.
    """
    found = []
    for h in sorted_widths(finished(runs)):
        for alpha, sets in _largest_sets(runs, h):
            gains = np.array([one.mean_error - one.ensemble_error for one in sets.values()])
            found.append(Measurement.mean(100 * gains, f"{named_width(h)}, {scale_words(h, alpha)}"))
    return found


def _by_scale(networks: pd.DataFrame) -> dict[float, list[SampleCurve]]:
    """Returns the learning curves by sqrt(h) alpha, in ascending order of h."""
    found: dict[float, list[SampleCurve]] = {}
    for one in sample_curves(networks, ERROR):
        scale = float(significant(one.alpha * one.curve.h**0.5, 6))  # alpha has been rounded
        found.setdefault(scale, []).append(one)
    return found


def _require_pairs(networks: pd.DataFrame, narrow: SampleCurve, wide: SampleCurve) -> None:
    """Checks that two curves have the same n, and columns of the same training sets."""

    def sets(one: SampleCurve) -> set[tuple[float, ...]]:
        rows = of_width(networks, one.curve.h)
        names = [name for name in DATA_SEEDS if name in rows]
        seeds = rows.loc[rows["alpha"] == one.alpha, names].apply(pd.to_numeric).fillna(-1.0)
        return set(seeds.itertuples(index=False, name=None))

    if not np.array_equal(narrow.curve.alpha, wide.curve.alpha) or sets(narrow) != sets(wide):
        raise AnalysisError(
            f"networks of {named_width(narrow.curve.h)} and {named_width(wide.curve.h)} have finished on other "
            f"training sets: {_REMEDY}"
        )


def _largest_sets(runs: pd.DataFrame, h: float) -> Iterator[tuple[float, dict[int, EnsembleStatistics]]]:
    """Yields the smallest and the largest alpha of a width, with the statistics of each largest training set."""
    rows = of_width(finished(runs, NETWORK), h)
    alphas = common_alphas(rows)
    rows = rows[pd.to_numeric(rows[SAMPLES]) == pd.to_numeric(rows[SAMPLES]).max()]
    rows = rows.assign(_set=training_sets(rows))
    for alpha in alphas:
        sets = rows[rows["alpha"] == alpha].groupby("_set", sort=True)
        yield alpha, {int(str(number)): statistics_of(members) for number, members in sets}
