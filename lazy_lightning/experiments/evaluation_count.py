"""How many evaluations of loss and gradient a member takes to its margins, from fits to finished runs.

Fully connected networks and the soft hinge: digits (n = 200, 1000) and MNIST (n = 8000), sqrt(h) alpha from
0.01 to 10^4. Curves of different widths collapse on sqrt(h) alpha. Other images take up to 2.3 times as many (CIFAR-10,
n = 1000, lazy), so it is an estimate before anything has run, which a sweep replaces by the counts of its own runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_SAMPLES = 200.0
"""The number of training samples at which the counts below hold."""
_CROSSOVER, _STEEPNESS = 32.0, 1.57
"""The sqrt(h) alpha in the middle between both counts, and how fast one turns into the other (MNIST)."""


class _Counts(NamedTuple):
    """Counts in both regimes, each with its exponent against the number of training samples."""

    feature: float
    feature_growth: float
    lazy: float
    lazy_growth: float


_BY_INTEGRATOR: Mapping[str, _Counts] = MappingProxyType(
    {
        "euler": _Counts(404.0, 0.31, 492.0, 0.75),
        "explicit": _Counts(230.0, 0.31, 777.0, 0.75),
        "implicit": _Counts(170.0, 0.2, 130.0, 0.2),
        "auto": _Counts(200.0, 0.2, 180.0, 0.2),
    }
)


def expected_evaluations(scale: float, samples: int, integrator: str = "euler") -> float:
    """Returns the expected number of evaluations of a member.

    It is a n^p + (b n^q - a n^p) / (1 + (32/scale)^1.57), with a, p of the feature and b, q of the lazy regime. An
    integrator of the user's own counts as ``euler``.

    Args:
        scale: sqrt(h) alpha, or alpha of a network without a width.
        samples: number n of training samples.
        integrator: the name of the integrator.

    >>> [round(expected_evaluations(scale, 8000)) for scale in (0.01, 10.0, 1e4)]
    [1268, 2177, 7825]
    """
    counts = _BY_INTEGRATOR.get(integrator, _BY_INTEGRATOR["euler"])
    growth = samples / _SAMPLES
    feature: float = counts.feature * growth**counts.feature_growth
    lazy: float = counts.lazy * growth**counts.lazy_growth
    share: float = 1 / (1 + (_CROSSOVER / scale) ** _STEEPNESS)
    return feature + (lazy - feature) * share
