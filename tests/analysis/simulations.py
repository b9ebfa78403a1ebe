"""Random data: how often stated errors cover the truth, and results that may be refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lazy_lightning.errors import AnalysisError


class Covered(NamedTuple):
    share: float
    """Of the simulations, those in which the truth is within two errors."""
    deviation: float
    """The true standard deviation of the estimate."""
    error: float
    """The median of the errors stated."""
    bias: float
    """The mean deviation in units of its own uncertainty."""


def coverage(estimate: Callable[[np.random.Generator], tuple[float, float]], truth: float, simulations: int) -> Covered:
    """``estimate`` makes data from the generator, and a value and an error from the data."""
    rng = np.random.default_rng(7)
    values, errors = np.array([estimate(rng) for _ in range(simulations)]).T
    away = values - truth
    bias = away.mean() / (away.std() / np.sqrt(simulations))
    return Covered(float((np.abs(away) < 2 * errors).mean()), float(away.std()), float(np.median(errors)), float(bias))


def tried(analysis: Callable[..., Any], *data: Any, **options: Any) -> Any:
    """The result, or None where random data happen to be refused."""
    try:
        return analysis(*data, **options)
    except AnalysisError:
        return None
