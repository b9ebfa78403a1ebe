"""The least-squares line through points, as a linear function of their ordinates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.analysis.student import widening


class Line(NamedTuple):
    """The least-squares line v = slope u + intercept for abscissas u and weights w and arbitrary ordinates v.

    slope = sum_i w_i (u_i - m) v_i/S and intercept = sum w v/sum w - slope m, where m = sum w u/sum w and
    S = sum w (u - m)^2.
    """

    u: Floats
    """Abscissas (k,)."""
    functionals: Floats
    """Matrix (2, k) whose product with v is the slope and the intercept."""

    @classmethod
    def through(cls, u: Floats, weights: Floats | None = None) -> Line:
        """Returns the line for abscissas u (k,), which must not all be equal; the default weights (k,) are 1."""
        w = np.ones_like(u) if weights is None else weights / weights.max()
        centre = (w * u).sum() / w.sum()
        slope = w * (u - centre) / (w * (u - centre) ** 2).sum()
        return cls(u, np.stack([slope, w / w.sum() - slope * centre]))

    def fit(self, v: Floats) -> Floats:
        """Returns slope and intercept (..., 2) of ordinates (..., k)."""
        fitted: Floats = v @ self.functionals.T
        return fitted

    def residuals(self, v: Floats) -> Floats:
        """Returns the residuals v - slope u - intercept, (..., k)."""
        fitted = self.fit(v)
        return v - fitted[..., :1] * self.u - fitted[..., 1:]

    def variances(self, variance: Floats | float) -> Floats:
        """Returns the variances (2,) of slope and intercept for independent ordinates with ``variance`` (k,) or ()."""
        variances: Floats = (self.functionals**2 * variance).sum(axis=1)
        return variances


def combined_errors(one: Floats, one_dof: float, other: Floats, other_dof: float) -> Floats:
    """Returns (one + other)^(1/2), widened for the effective degrees of freedom of the sum of two variances.

    The effective degrees of freedom are (a + b)^2/(a^2/nu_a + b^2/nu_b) (F. E. Satterthwaite, doi:10.2307/3002019).
    """
    total = one + other
    spread = one**2 / one_dof + other**2 / other_dof
    dof = np.divide(total**2, spread, out=np.full_like(total, np.inf), where=spread > 0)
    return np.array([widening(float(d)) for d in dof]) * np.sqrt(total)
