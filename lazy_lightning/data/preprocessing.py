"""Standardised channels, centring, normalisation to the sphere, and principal components, in that order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError, DataError

_RELATIVE_ZERO = 1e-12


class PrincipalAxes(NamedTuple):
    """The leading eigenvectors of a covariance matrix.

    Attributes:
        mean: ``(d,)``, subtracted before projecting.
        axes: ``(k, d)``, orthonormal rows.
        eigenvalues: ``(k,)``, decreasing: variances along the axes, with 1/n (not 1/(n-1)).
    """

    mean: Tensor
    axes: Tensor
    eigenvalues: Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Which steps are taken: see :func:`standardise`, :func:`center`, :func:`to_sphere` and :func:`project`."""

    centre: bool = True
    sphere: bool = True
    pca: int | None = None
    whiten: bool = False
    standardise: bool = False


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of ``x``, ``(n, channels, *s)``, shaped to broadcast with it.

    Raises:
        DataError: a channel is constant.
    """
    others = [axis for axis in range(x.ndim) if axis != 1]
    mean, std = x.mean(others, keepdim=True), x.std(others, keepdim=True, correction=0)
    if bool((std <= _RELATIVE_ZERO * x.abs().amax()).any()):
        raise DataError("a channel of the images is constant and cannot be standardised: set standardise: false")
    return mean, std


def standardise(x: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
    """(x - mean) / std per channel.

    >>> x = torch.tensor([[[0.0, 4.0]], [[4.0, 0.0]]])
    >>> standardise(x, channel_statistics(x)).flatten().tolist()
    [-1.0, 1.0, 1.0, -1.0]
    """
    mean, std = statistics
    return (x - mean) / std


def standardised_targets(y: Tensor, train: Tensor) -> Tensor:
    """(y - mean) / std per target, with the mean and the standard deviation (1/n) of the training samples.

    Args:
        y: ``(n,)`` or ``(n, c)`` real-valued targets.
        train: positions of the training samples.

    Raises:
        DataError: a target is constant over the training set.

    >>> standardised_targets(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 1]))
    tensor([-1.,  1.,  3.])
    """
    mean, std = y[train].mean(0), y[train].std(0, correction=0)
    if bool((std <= _RELATIVE_ZERO * y[train].abs().amax()).any()):
        raise DataError(
            f"a target is constant over the {len(train)} training samples and cannot be standardised: set "
            "standardise_targets: false, or leave the target out"
        )
    return (y - mean) / std


def center(x: Tensor, mean: Tensor) -> Tensor:
    """x - mean, per pixel: ``(n, *s)`` minus ``(*s)``."""
    return x - mean


def to_sphere(x: Tensor, name: str = "data", floor: float = 0.0) -> Tensor:
    """Scale each sample of ``x``, ``(n, *s)``, to the norm sqrt(d), with d inputs per sample.

    Args:
        x: samples.
        name: what to call the set in an error message.
        floor: norms up to this count as zero.

    Raises:
        DataError: a sample is zero, so it has no direction.

    >>> to_sphere(torch.tensor([[3.0, 4.0]], dtype=torch.float64)).norm() ** 2
    tensor(2.0000, dtype=torch.float64)
    """
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    zero = (norms <= floor).nonzero().squeeze(1).tolist()
    if zero:
        raise DataError(
            f"{len(zero)} of {len(x)} samples of the {name} set are zero and have no direction on the sphere "
            f"(first positions: {zero[:5]}): leave them out, or set sphere: false"
        )
    scale = math.sqrt(math.prod(x.shape[1:])) / norms
    return x * scale.view(-1, *(1,) * (x.ndim - 1))


def principal_axes(x: Tensor, k: int) -> PrincipalAxes:
    """The ``k`` leading principal axes of ``x``, ``(n, *s)``, by scikit-learn's full (exact) solver.

    Raises:
        ConfigError: ``k`` is under 1 or over min(n, d).
        DataError: all samples are equal.
    """
    from sklearn.decomposition import PCA

    z = x.flatten(1)
    n, d = z.shape
    if not 1 <= k <= min(n, d):
        raise ConfigError(f"pca must be from 1 to {min(n, d)} (for {n} samples of {d} inputs), got {k}")
    if bool((z == z[0]).all()):
        raise DataError(f"principal components need samples that differ, but all {n} are equal: set pca: null")
    fitted = PCA(n_components=k, svd_solver="full").fit(z.numpy())
    # From the singular values, as scikit-learn's own variances divide by n - 1.
    eigenvalues = torch.from_numpy(fitted.singular_values_).square() / n
    return PrincipalAxes(torch.from_numpy(fitted.mean_), torch.from_numpy(fitted.components_), eigenvalues)


def project(x: Tensor, axes: PrincipalAxes, whiten: bool) -> Tensor:
    """Coordinates ``(n, k)`` of ``x``, ``(n, *s)``, along principal axes, rescaled.

    Without whitening all are divided by sqrt(mean of the k eigenvalues), which keeps their proportions;
    with whitening each by the square root of its own eigenvalue. In both cases the mean square over the
    k coordinates of the set that gave the axes is 1.

    Raises:
        DataError: a direction to be divided by has no variance.
    """
    variances = axes.eigenvalues if whiten else axes.eigenvalues.mean().expand(len(axes.eigenvalues))
    flat = int((variances <= _RELATIVE_ZERO * axes.eigenvalues[0]).sum())
    if flat:
        raise DataError(
            f"{flat} of the {len(variances)} principal components have no variance to divide by: "
            f"set pca to {len(variances) - flat} or less, or whiten: false"
        )
    return ((x.flatten(1) - axes.mean) @ axes.axes.T) / variances.sqrt()


class Preprocessor:
    """The chosen steps with the mean and axes of one set of samples, ready for any other.

    Args:
        statistics: ``(n, *s)`` float64, the samples whose mean and principal axes are used.
        steps: which steps to take.

    Raises:
        ConfigError, DataError: from the steps.
    """

    def __init__(self, statistics: Tensor, steps: Preprocessing) -> None:
        self.steps = steps
        self.channels = channel_statistics(statistics) if steps.standardise else None
        statistics = self._standardised(statistics)
        self.mean = statistics.mean(0)
        # Subtracting a mean leaves rounding errors in place of zeros; they are of this size at most.
        self.floor = _RELATIVE_ZERO * statistics[0].numel() ** 0.5 * float(statistics.abs().max())
        self.axes: PrincipalAxes | None = None
        if steps.pca is not None:
            self.axes = principal_axes(self._normalise(statistics, "statistics"), steps.pca)

    def _standardised(self, x: Tensor) -> Tensor:
        return x if self.channels is None else standardise(x, self.channels)

    def __call__(self, x: Tensor, name: str = "data") -> Tensor:
        """``x``, ``(n, *s)``, after all steps: ``(n, *s)``, or ``(n, k)`` with principal components."""
        x = self._normalise(self._standardised(x), name)
        return x if self.axes is None else project(x, self.axes, self.steps.whiten)

    def _normalise(self, x: Tensor, name: str) -> Tensor:
        if self.steps.centre:
            x = center(x, self.mean)
        return to_sphere(x, name, self.floor) if self.steps.sphere else x
