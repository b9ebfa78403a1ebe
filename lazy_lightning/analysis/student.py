"""Student's t: what few seeds do to an error.

A standard error from nu degrees of freedom is itself uncertain, and two of them cover the truth less often than 95 %:
82 % for three seeds. All errors of this room are widened, so that two of them cover it in 95.4 %.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_NODES = 8000
_REACH = 12.0
"""Beyond this many standard deviations lies nothing, once there are enough degrees of freedom that it matters."""


def normal_coverage(sigmas: float) -> float:
    """P(|Z| < sigmas) of a standard normal Z.

    >>> round(normal_coverage(2.0), 4)
    0.9545
    """
    return math.erf(sigmas / math.sqrt(2))


@lru_cache(maxsize=4096)
def student_quantile(dof: float, coverage: float) -> float:
    """The t with P(|T| < t) = coverage, T of Student's distribution with any real dof >= 1; to about 1e-5.

    T = dof^(1/2) tan theta, where theta has a density ~ cos(theta)^(dof - 1): summed by the midpoint rule, on nodes
    that are dense at the far end.

    >>> round(student_quantile(1.0, 0.5), 4)  # Cauchy's quartile
    1.0
    """
    nu = min(max(dof, 1.0), 1e9)
    edges = min(math.pi / 2, _REACH / math.sqrt(nu)) * (1 - np.linspace(1.0, 0.0, _NODES + 1) ** 2)
    density = np.cos((edges[1:] + edges[:-1]) / 2) ** (nu - 1)
    cumulative = np.concatenate([[0.0], np.cumsum(density * np.diff(edges))])
    theta = float(np.interp(coverage * cumulative[-1], cumulative, edges))
    return math.sqrt(nu) * math.tan(theta)


def widening(dof: float) -> float:
    """By how much a standard error from ``dof`` degrees of freedom is widened: t/2 with P(|T| < t) = P(|Z| < 2).

    >>> [round(widening(dof), 2) for dof in (1, 2, 4, 19, 1000)]
    [6.98, 2.26, 1.43, 1.07, 1.0]
    """
    return student_quantile(dof, normal_coverage(2.0)) / 2
