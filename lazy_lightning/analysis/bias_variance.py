"""Bias and variance of trained functions over training sets and initial weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.errors import AnalysisError


class BiasVariance(NamedTuple):
    """Parts of the mean squared error of F on test samples; their sum is the error of a new member.

    Each is an unbiased estimate, so it may be negative where it is small.
    """

    bias2: float
    """(mean F - y)^2 of the mean over all training sets and weights."""
    data: float
    """Variance over training sets of the mean over all weights: what an infinite ensemble still has."""
    weights: float
    """Variance over weights of the mean over all training sets."""
    interaction: float
    """Variance over both that is not the sum of the two."""

    @property
    def variance(self) -> float:
        """Variance over members with new training sets and new weights."""
        return self.data + self.weights + self.interaction

    @property
    def of_weights(self) -> float:
        """Mean over training sets of the variance over weights: what an ensemble removes."""
        return self.weights + self.interaction

    @property
    def error(self) -> float:
        """Mean squared error (F - y)^2 of a member."""
        return self.bias2 + self.variance


def bias_variance(outputs: ArrayLike, targets: ArrayLike) -> BiasVariance:
    """Decomposes the mean squared error on test samples, from every training set with every seed of the weights.

    In F = m + a_d + b_w + c_dw at each sample the variances of a, b, c are estimated by the mean squares of a two-way
    analysis of variance, and averaged over samples and outputs. Where the variance over weights dominates, a network
    with more neurons or an ensemble is as good as an infinitely wide one (the variance-limited regime of A. Atanasov,
    B. Bordelon, S. Sainathan, C. Pehlevan, arXiv:2212.12147).

    Args:
        outputs: F (D, W, n) or (D, W, n, c) for D training sets and W seeds of the weights.
        targets: real targets or labels +1 and -1, (n,) or (n, c).

    Raises:
        AnalysisError: there are fewer than two training sets or two seeds, the shapes do not fit, or an output is not
            finite.

    >>> print(bias_variance([[[1.0], [3.0]], [[2.0], [4.0]]], [2.5]))
    BiasVariance(bias2=-1.25, data=0.5, weights=2.0, interaction=0.0)
    """
    F, y = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if F.ndim not in (3, 4) or F.shape[2:] != y.shape or F.shape[0] < 2 or F.shape[1] < 2 or F.size == 0:
        raise AnalysisError(
            f"outputs have shape {F.shape} and targets {y.shape}, expected (D, W, n[, c]) with two training sets and "
            "two seeds of the weights at least, and (n[, c])."
        )
    if not np.isfinite(F).all():
        raise AnalysisError("outputs are not all finite: leave out the training set or the seed of such a member.")
    D, W = F.shape[:2]
    mean = F.mean(axis=(0, 1))
    of_data, of_weights = F.mean(axis=1) - mean, F.mean(axis=0) - mean
    rest = F - mean - of_data[:, None] - of_weights[None]
    interaction = _mean_square(rest, (D - 1) * (W - 1), y.size)
    data = _mean_square(of_data, D - 1, y.size) - interaction / W
    weights = _mean_square(of_weights, W - 1, y.size) - interaction / D
    bias2 = float(((mean - y) ** 2).mean()) - data / D - weights / W - interaction / (D * W)
    return BiasVariance(bias2, data, weights, interaction)


def _mean_square(deviations: Floats, dof: int, numbers: int) -> float:
    """Returns the sum of squares over members, divided by ``dof``, averaged over the numbers of a member."""
    return float((deviations**2).sum()) / dof / numbers
