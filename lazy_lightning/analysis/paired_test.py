"""Comparison of two sets of members that were tested on the same samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.crossed import CrossedMean, crossed_mean
from lazy_lightning.errors import AnalysisError


def paired_test(one: ArrayLike, other: ArrayLike) -> CrossedMean:
    """Returns the mean difference ``one - other`` with its error over seeds and test samples, and its p-value.

    Row s of both has the same seed, and column i the same test sample, so what seeds and samples have in common cancels
    in the differences, and the error is smaller than that of two independent means. With one seed the only source of
    error are the samples, and the test is that of McNemar without correction for continuity. Members with several
    initial weights for each training set are averaged over the weights first, so that the rows are independent.

    Args:
        one: a number for each seed and test sample, (s, n): whether it is misclassified
            (:func:`~lazy_lightning.analysis.ensemble.misclassified`), or its loss. (n,) is one seed.
        other: the same of the other members, of the same shape.

    Raises:
        AnalysisError: the shapes differ, or a number is not finite.

    >>> wrong, less = [[1, 1, 0, 0, 1, 0, 0, 0]], [[1, 0, 0, 0, 0, 0, 0, 0]]
    >>> found = paired_test(wrong, less)
    >>> print(found, f"p = {found.p_value:.2f}")
    0.25 ± 0.20 p = 0.17
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (one, other))
    if a.shape != b.shape:
        raise AnalysisError(
            f"the two have shapes {a.shape} and {b.shape}, expected the same seeds and test samples in both: leave out "
            "the seeds that only one of them has."
        )
    return crossed_mean(a - b)
