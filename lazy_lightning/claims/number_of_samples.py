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
from lazy_lightning.runs.configuration import significant


def exponent_of_narrow_minus_wide(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the exponent in n of the test error of the narrowest networks minus that of the widest, at each scale.

    It is the exponent of the ratio of the two errors, which is paired over training sets.
    """
    found = []
    for scale, curves in _by_scale(finished(runs)).items():
        if len(curves) > 1:
            narrow, wide = curves[0].curve, curves[-1].curve
            law = power_law(narrow.alpha, narrow.values / wide.values)
            found.append(Measurement(law.slope, law.error, common_scale_words(scale)))
    if not found:
        raise AnalysisError("no two widths were trained at a common sqrt(h) alpha on several numbers of samples")
    return found


def variance_of_feature_over_lazy(runs: pd.DataFrame) -> list[Measurement]:
    """Measures log10 of the variance over weights at the smallest alpha over that at the largest, for each width.

    It is that of F on the test set, at the largest number of training samples, paired over training sets.
    """
    found = []
    for h in sorted_widths(finished(runs)):
        parts = [np.array([one.variance for one in sets]) for _, sets in _largest_sets(runs, h)]
        found.append(Measurement.mean(np.log10(parts[0] / parts[-1]), named_width(h)))
    return found


def gain_over_training_sets(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the mean test error of the members minus that of their average, in percent, at each width and scale.

    It is that of the largest number of training samples; the members of an average have one training set.
    """
    found = []
    for h in sorted_widths(finished(runs)):
        for alpha, sets in _largest_sets(runs, h):
            gains = np.array([one.mean_error - one.ensemble_error for one in sets])
            found.append(Measurement.mean(100 * gains, f"{named_width(h)}, {scale_words(h, alpha)}"))
    return found


def _by_scale(networks: pd.DataFrame) -> dict[float, list[SampleCurve]]:
    """Returns the learning curves by sqrt(h) alpha, in ascending order of h."""
    found: dict[float, list[SampleCurve]] = {}
    for one in sample_curves(networks, ERROR):
        scale = float(significant(one.alpha * one.curve.h**0.5, 6))  # alpha has been rounded
        found.setdefault(scale, []).append(one)
    return found


def _largest_sets(runs: pd.DataFrame, h: float) -> Iterator[tuple[float, list[EnsembleStatistics]]]:
    """Yields the smallest and the largest alpha of a width, with the statistics of each largest training set."""
    rows = of_width(finished(runs, NETWORK), h)
    alphas = common_alphas(rows)
    rows = rows[pd.to_numeric(rows[SAMPLES]) == pd.to_numeric(rows[SAMPLES]).max()]
    rows = rows.assign(_set=training_sets(rows))
    for alpha in alphas:
        sets = rows[rows["alpha"] == alpha].groupby("_set", sort=True)
        yield alpha, [statistics_of(members) for _, members in sets]
