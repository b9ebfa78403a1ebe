"""Exponents, crossings, collapses and plateaus with their errors, from measurements over sweeps and seeds.

All functions are pure functions of numpy arrays. Measurements are x (k,) and y (k, s): k points of a sweep, s seeds,
NaN where a seed is missing; y (k,) is one seed. A column is one seed, which has the same initial weights at every x. An
``error`` is one standard error, widened for few seeds by Student's t, so that an interval of two errors on each side
contains the true value in 95 % of cases.
"""

from lazy_lightning.analysis.bias_variance import BiasVariance, bias_variance
from lazy_lightning.analysis.collapse import Exponent, Quality, collapse_exponent, collapse_quality
from lazy_lightning.analysis.crossed import CrossedMean, crossed_mean
from lazy_lightning.analysis.crossing import Crossing, crossing
from lazy_lightning.analysis.curves import Curve
from lazy_lightning.analysis.ensemble import EnsembleStatistics, ensemble_statistics, misclassified
from lazy_lightning.analysis.number_format import with_error, within_factor
from lazy_lightning.analysis.paired_test import paired_test
from lazy_lightning.analysis.plateau import Plateau, plateau
from lazy_lightning.analysis.power_law import PowerLaw, power_law, power_law_of_points
from lazy_lightning.analysis.sampling import binomial_error
from lazy_lightning.analysis.seeds import geometric_mean, mean_and_error, resampled_means

__all__ = [
    "BiasVariance",
    "CrossedMean",
    "Crossing",
    "Curve",
    "EnsembleStatistics",
    "Exponent",
    "Plateau",
    "PowerLaw",
    "Quality",
    "bias_variance",
    "binomial_error",
    "collapse_exponent",
    "collapse_quality",
    "crossed_mean",
    "crossing",
    "ensemble_statistics",
    "geometric_mean",
    "mean_and_error",
    "misclassified",
    "paired_test",
    "plateau",
    "power_law",
    "power_law_of_points",
    "resampled_means",
    "with_error",
    "within_factor",
]
