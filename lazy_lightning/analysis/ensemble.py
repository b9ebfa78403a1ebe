"""Statistics of an ensemble of seeds: the variance of F over seeds, the errors of the members and of their mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError

Labels = NDArray[np.int64] | Floats


class EnsembleStatistics(NamedTuple):
    """Statistics of the outputs F of s seeds on n samples."""

    seeds: int
    """Number of seeds."""
    variance: float
    """Unbiased variance over seeds, averaged over samples and outputs."""
    variance_error: float
    """Error of the variance by jackknife over seeds; NaN for two seeds. Two of it cover in 95 % if F varies in many
    directions on the samples, in 85 to 90 % if only in one, because the variance is then far from normal."""
    mean_error: float
    """Share of misclassified samples, averaged over members. NaN for regression targets."""
    mean_error_sd: float
    """Standard deviation of the share over members."""
    ensemble_error: float
    """Share of samples that the mean output misclassifies."""
    bias2: float
    """Unbiased estimate of (mean output - y)^2 of an infinite ensemble, averaged over samples and outputs; it may be
    negative. NaN for classes."""

    def __str__(self) -> str:
        return f"variance {with_error(self.variance, self.variance_error)}"


def ensemble_statistics(outputs: ArrayLike, labels: ArrayLike) -> EnsembleStatistics:
    """Returns the variance over seeds, the errors of members and ensemble, and the squared bias.

    For labels +1 and -1 a sample is misclassified if F y <= 0; for classes, if the output of its class is not above all
    others (a tie is an error). The variance of the ensemble mean, variance/s, is subtracted from the squared bias
    (mean F - y)^2.

    Args:
        outputs: outputs (s, n) or (s, n, c).
        labels: floats +1 and -1 (n,), integers from 0 to c - 1 (n,) as classes, or any floats (n[, c]) as regression
            targets.

    Raises:
        AnalysisError: there are fewer than two seeds or no samples, an output is not finite (the message names the
            members), or the labels do not fit the outputs.

    >>> statistics = ensemble_statistics([[1.0, -1.0], [3.0, 1.0]], [1.0, -1.0])
    >>> statistics.variance, statistics.mean_error, statistics.ensemble_error, statistics.bias2
    (2.0, 0.25, 0.5, 0.0)
    """
    F = _checked_outputs(outputs)
    y = _checked_labels(labels, F)
    mean, errors = F.mean(axis=0), _errors(F, y)
    with np.errstate(over="ignore", invalid="ignore"):  # squares of outputs that have grown without bound
        variance, variance_error = float(F.var(axis=0, ddof=1).mean()), _jackknife(F - mean)
        bias2 = math.nan if y.dtype.kind == "i" else float(((mean - y) ** 2).mean()) - variance / len(F)
    return EnsembleStatistics(
        seeds=len(F),
        variance=variance,
        variance_error=variance_error,
        mean_error=float(errors.mean()),
        mean_error_sd=float(errors.std(ddof=1)),
        ensemble_error=float(_errors(mean[None], y)[0]),
        bias2=bias2,
    )


def misclassified(outputs: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Returns which samples each member misclassifies, (s, n), as :func:`ensemble_statistics` counts them.

    Args:
        outputs: outputs (s, n) or (s, n, c) of one member or more.
        labels: floats +1 and -1 (n,), or integers (n,) as classes.

    Raises:
        AnalysisError: an output is not finite, or the labels do not fit the outputs or are regression targets.

    >>> misclassified([[1.0, -1.0], [3.0, 1.0]], [1.0, -1.0])
    array([[False, False],
           [False,  True]])
    """
    F = _checked_outputs(outputs, least=1)
    wrong = _misclassified(F, _checked_labels(labels, F))
    if wrong is None:
        raise AnalysisError("the labels are regression targets, expected classes or +1 and -1: compare losses instead.")
    return wrong


def _checked_outputs(outputs: ArrayLike, least: int = 2) -> Floats:
    """Returns the outputs as float64 (s, n, c)."""
    F = np.asarray(outputs, dtype=np.float64)
    if F.ndim not in (2, 3) or F.size == 0:
        raise AnalysisError(f"outputs have shape {F.shape}, expected (s, n) or (s, n, c): seeds, samples, outputs.")
    if len(F) < least:
        raise AnalysisError("A variance over seeds needs two seeds at least, got 1: train some more.")
    failed = np.flatnonzero(~np.isfinite(F.reshape(len(F), -1)).all(axis=1))
    if len(failed):
        raise AnalysisError(f"The outputs of members {failed.tolist()} are not all finite: leave these members out.")
    return F.reshape(*F.shape[:2], -1)


def _checked_labels(labels: ArrayLike, F: Floats) -> Labels:
    """Returns int64 classes (n,) or float64 targets (n, c)."""
    _, n, c = F.shape
    y = np.asarray(labels)
    if y.dtype.kind in "iu" and y.shape == (n,):
        if c == 1:
            raise AnalysisError("Integer labels are classes, but there is one output: give labels +1 and -1 as floats.")
        if y.min() < 0 or y.max() >= c:
            raise AnalysisError(f"Classes go from {y.min()} to {y.max()}, expected 0 to {c - 1} for {c} outputs.")
        return y.astype(np.int64)
    if y.dtype.kind == "f" and y.shape in ((n,), (n, c)) and y.size == n * c:
        targets: Floats = y.astype(np.float64).reshape(n, c)
        if np.isfinite(targets).all():
            return targets
        sample = int((~np.isfinite(targets)).any(axis=1).argmax())
        raise AnalysisError(f"The label of sample {sample} is not finite: leave the sample out.")
    raise AnalysisError(
        f"labels are {y.dtype} of shape {y.shape}, expected ({n},) integers as classes or ({n}, {c}) floats for {n} "
        f"samples of {c} outputs."
    )


def _errors(F: Floats, y: Labels) -> Floats:
    """Returns the share of misclassified samples of each member, (s,); NaN for regression targets."""
    wrong = _misclassified(F, y)
    if wrong is None:
        return np.full(len(F), np.nan)
    return np.asarray(1 - (~wrong).mean(axis=1), dtype=np.float64)


def _misclassified(F: Floats, y: Labels) -> NDArray[np.bool_] | None:
    """Returns which samples each member misclassifies, (s, n); None for regression targets."""
    if y.dtype.kind == "i":
        own = np.take_along_axis(F, y[None, :, None].astype(np.intp), axis=2)
        return np.asarray((own <= F).sum(axis=2) != 1)
    if F.shape[2] == 1 and (np.abs(y) == 1).all():
        return np.asarray(~(F * y > 0)[..., 0])
    return None


def _jackknife(deviations: Floats) -> float:
    """Returns the jackknife error of the variance, from the variances v_j without seed j.

    With d_j the deviations from the mean and Q = sum d^2: v_j = (Q - s/(s - 1) d_j^2)/(s - 2).
    """
    s = len(deviations)
    if s < 3:
        return math.nan
    squares = (deviations**2).reshape(s, -1).mean(axis=1)
    without = (squares.sum() - s / (s - 1) * squares) / (s - 2)
    return widening(s - 1) * float(np.sqrt((s - 1) * without.var()))
