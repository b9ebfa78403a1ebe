"""The sampling error of an error rate, from the finite number of test samples."""

from __future__ import annotations

import math

from lazy_lightning.errors import AnalysisError

_SIGMAS = 2.0


def binomial_error(share: float, samples: int) -> float:
    """Returns the standard error of a share of ``samples`` independent test samples.

    It is (q (1 - q)/m)^(1/2) with m = samples + 4 and q = (share samples + 2)/m, so that it is not 0 for a share of 0
    and two of it cover in about 95 % also for few samples and small shares (A. Agresti, B. A. Coull,
    doi:10.1080/00031305.1998.10480550). For the mean error over members that were tested on the same samples it is an
    upper bound; :func:`~lazy_lightning.analysis.crossed.crossed_mean` gives the error itself.

    Args:
        share: error rate, from 0 to 1; NaN gives NaN.
        samples: number of test samples.

    Raises:
        AnalysisError: the share is not in [0, 1], or there is no sample.

    >>> round(binomial_error(0.05, 500), 5)
    0.01003
    """
    if samples < 1:
        raise AnalysisError(f"samples is {samples}, expected the number of test samples, 1 at least.")
    if share != share:
        return math.nan
    if not 0 <= share <= 1:
        raise AnalysisError(f"share is {share:g}, expected an error rate from 0 to 1: divide percent by 100.")
    m = samples + _SIGMAS**2
    q = (share * samples + _SIGMAS**2 / 2) / m
    return math.sqrt(q * (1 - q) / m)
