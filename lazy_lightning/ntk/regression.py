"""The squared loss solved exactly on a frozen kernel: gradient flow, momentum flow, and ridge regression.

With L = 1/(alpha^2 n) sum (F - y)^2/2 and F = alpha (f - f0), a model that is linear in its weights follows

    gradient flow   F' = -(1/n) Theta (F - y),
    momentum flow   tau F'' + F' = -(1/n) Theta (F - y),    F'(0) = 0,

whatever alpha is. In the eigenbasis of Theta each component u of F - y moves alone, at the rate k = lambda/n:
u(t) = u(0) r(t), and for momentum it is a damped oscillator. Outputs elsewhere follow from the time integral
g(t) = (1 - r(t))/k, which is never computed as that quotient where k is small:

    F(x, t) = F(x, 0) + (1/n) Theta(x, X) V g(t) V^T (y - F(X, 0)).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.alignment import check_square
from lazy_lightning.ntk.one_device import require_one_device
from lazy_lightning.ntk.oscillator import decay, integrated_decay
from lazy_lightning.ntk.spectrum import eigensystem
from lazy_lightning.objective.losses import is_class_index


class Predictions(NamedTuple):
    """Outputs on both sets."""

    train: Tensor
    """(..., n) or (..., n, c)."""
    test: Tensor | None
    """(..., m) or (..., m, c); None without a test kernel."""


class KernelRegression:
    """Regression on a kernel with the squared loss, by one eigendecomposition in float64.

    Args:
        kernel: Theta of the training samples, (..., n, n), shared by all outputs, or (..., n c, n c) between pairs of
            a sample and an output, in the order of ``y.flatten()``; see
            :func:`~lazy_lightning.ntk.joint_kernel.joint_kernel`.
        y: (n,) or (n, c) floats that the members share; for classes, one-hot targets.
        test_kernel: Theta of test with training samples, (..., m, n) or (..., m c, n c).
        start: F(0) on the training samples, (..., n) or (..., n, c); None is 0, the centred output.
        test_start: the same on the test samples.
        rtol: eigenvalues up to rtol lambda_max are rounding: directions in which the minimum-norm solution stays at
            its start. None is n eps(float64) or 8 eps of the kernel's dtype, whichever is more.

    Times may be a number or a tensor of any shape, whose axes then come first in what is returned; ``inf`` is the
    minimum-norm solution. At finite t every eigenvalue counts, however small (negative ones as zero): their sum
    matters to test outputs. The rounding of Theta, eps lambda_max, is therefore learnt too at t ~ n/(eps lambda_max),
    and before it moves test outputs by about eps lambda_max t/n. A member whose kernel is not finite has outputs NaN.

    Raises:
        ConfigError: shapes do not fit, tensors lie on several devices, targets are not floats, or an eigenvalue is
            below -rtol lambda_max.

    >>> solved = KernelRegression(torch.tensor([[4.0]]), torch.tensor([1.0]), torch.tensor([[2.0]]))
    >>> solved.train_outputs(torch.tensor([0.0, 0.5, torch.inf]))  # 1 - exp(-4 t)
    tensor([[0.0000],
            [0.8647],
            [1.0000]], dtype=torch.float64)
    >>> solved.test_outputs(torch.inf)
    tensor([0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        kernel: Tensor,
        y: Tensor,
        test_kernel: Tensor | None = None,
        *,
        start: Tensor | None = None,
        test_start: Tensor | None = None,
        rtol: float | None = None,
    ) -> None:
        _check_shapes(kernel, y, test_kernel, start, test_start)
        require_one_device(kernel=kernel, y=y, test_kernel=test_kernel, start=start, test_start=test_start)
        self.n = len(y)
        self._outputs = tuple(y.shape[1:])
        self._columns = 1 if kernel.shape[-1] == y.numel() else y.shape[1]
        self._start = self._matrix(torch.zeros_like(y) if start is None else start, y.ndim)
        self._test_kernel = None if test_kernel is None else test_kernel.double()
        self._test_start = None if test_start is None else self._matrix(test_start, y.ndim)

        values, self._vectors = eigensystem(kernel)
        cutoff = (_rounding(kernel) if rtol is None else rtol) * values[..., :1].clamp(min=0)
        _check_semidefinite(values, cutoff)
        self._missing = self._vectors.mT @ (self._matrix(y, y.ndim) - self._start)
        each = self._missing.shape[:-1]  # members may share a kernel and differ in their starts
        self.rates = (values.clamp(min=0) / self.n).expand(each)
        """(..., N) float64, lambda/n in descending order: what t is to be compared with."""
        self._flat = (values <= cutoff).expand(each)

    def train_outputs(self, t: float | Tensor, tau: float = 0.0) -> Tensor:
        """F on the training samples at the times ``t``, (*t.shape, ..., n) or (*t.shape, ..., n, c).

        Raises:
            ConfigError: ``t`` or ``tau`` is negative or NaN, or ``tau`` infinite.
        """
        return self._train(self._integrated_decay(t, tau), torch.as_tensor(t).shape)

    def test_outputs(self, t: float | Tensor, tau: float = 0.0) -> Tensor:
        """F on the test samples at the times ``t``, (*t.shape, ..., m) or (*t.shape, ..., m, c).

        Raises:
            ConfigError: there is no test kernel, ``t`` or ``tau`` is negative or NaN, or ``tau`` infinite.
        """
        return self._test(self._integrated_decay(t, tau), torch.as_tensor(t).shape)

    def loss(self, t: float | Tensor, tau: float = 0.0) -> Tensor:
        """The mean over samples of (F - y)^2/2, summed over outputs: alpha^2 L; (*t.shape, ...).

        From the components of the residual, not from F: it falls as far as they do.

        Raises:
            ConfigError: ``t`` or ``tau`` is negative or NaN, or ``tau`` infinite.
        """
        times, rates = self._times(t, tau)
        left = decay(rates, times, tau).masked_fill(times.isinf() & self._flat, 1.0)
        squares = (left.unsqueeze(-1) * self._missing).square().sum((-2, -1))
        return (squares / (2 * self.n)).reshape((*torch.as_tensor(t).shape, *squares.shape[1:]))

    def ridge(self, lam: float | Tensor) -> Predictions:
        """The minimum over dw of L + (lam/2) ‖dw‖^2, F = F_start + K (K + n lam)^-1 (y - F_start).

        So ``lam`` is a rate: it leaves lam/(k + lam) of a component, where gradient flow leaves exp(-k t). In the
        convention with ‖y - F‖^2 + a ‖.‖^2, a = n lam. ``lam`` = 0 is t = inf.

        Args:
            lam: a number, or a tensor whose axes come first in the outputs.

        Raises:
            ConfigError: ``lam`` is negative or NaN.
        """
        shape = torch.as_tensor(lam).shape
        ridge, rates = self._times(lam, 0.0, "lam")
        integrated_decay = (1 / (rates + ridge)).masked_fill((ridge == 0) & self._flat, 0.0)
        return Predictions(
            self._train(integrated_decay, shape),
            None if self._test_kernel is None else self._test(integrated_decay, shape),
        )

    def coefficients(self, t: float | Tensor, tau: float = 0.0) -> Tensor:
        """a(t) with F(x, t) = F(x, 0) + Theta(x, X) a(t), (*t.shape, ..., n) or (*t.shape, ..., n, c).

        For test kernels that come in tiles.

        Raises:
            ConfigError: ``t`` or ``tau`` is negative or NaN, or ``tau`` infinite.
        """
        return self._shaped(self._dual(self._integrated_decay(t, tau)), torch.as_tensor(t).shape)

    # ------------------------------------------------------------------ all below has one time axis, first

    def _times(self, t: float | Tensor, tau: float, name: str = "t") -> tuple[Tensor, Tensor]:
        """t as (T, 1, ..., 1) to go with the rates (..., N)."""
        times = torch.as_tensor(t, dtype=torch.float64, device=self.rates.device).detach()
        if not bool((times >= 0).all()):
            raise ConfigError(f"{name} is {t}, expected numbers >= 0: the flow starts at t = 0.")
        if not 0 <= tau < float("inf"):
            raise ConfigError(f"tau is {tau}, expected a finite time >= 0: 0 is gradient flow.")
        return times.reshape(-1, *(1,) * self.rates.ndim), self.rates

    def _integrated_decay(self, t: float | Tensor, tau: float) -> Tensor:
        times, rates = self._times(t, tau)
        return integrated_decay(rates, times, tau).masked_fill(times.isinf() & self._flat, 0.0)

    def _train(self, gain: Tensor, shape: torch.Size) -> Tensor:
        """F = F(0) + V k g V^T (y - F(0)), for the gains g (T, ..., N)."""
        # k g is 1 - r without the loss of digits at small t; where g is infinite, at k = 0, it is 0.
        moved = (self.rates * gain).where(self.rates != 0, 0.0).unsqueeze(-1) * self._missing
        return self._shaped(self._start + torch.einsum("...ij,t...jc->t...ic", self._vectors, moved), shape)

    def _test(self, gain: Tensor, shape: torch.Size) -> Tensor:
        if self._test_kernel is None:
            raise ConfigError("there is no kernel between test and training samples: give test_kernel.")
        change = torch.einsum("...ij,t...jc->t...ic", self._test_kernel, self._dual(gain))
        return self._shaped(change if self._test_start is None else self._test_start + change, shape)

    def _dual(self, gain: Tensor) -> Tensor:
        """a = V g V^T (y - F(0))/n, (T, ..., N, columns)."""
        return torch.einsum("...ij,t...jc->t...ic", self._vectors, gain.unsqueeze(-1) * self._missing) / self.n

    def _matrix(self, F: Tensor, axes: int) -> Tensor:
        """Outputs (..., n) or (..., n, c) as the (..., N, columns) that the kernel acts on."""
        return F.double().reshape(*F.shape[: F.ndim - axes], -1, self._columns)

    def _shaped(self, F: Tensor, shape: torch.Size) -> Tensor:
        return F.reshape(*shape, *F.shape[1:-2], -1, *self._outputs)


def _rounding(kernel: Tensor) -> float:
    """The rounding errors of the decomposition, and of a float32 kernel's own entries."""
    return max(kernel.shape[-1] * torch.finfo(torch.float64).eps, 8 * torch.finfo(kernel.dtype).eps)


def _check_semidefinite(values: Tensor, cutoff: Tensor) -> None:
    if bool((values < -cutoff).any()):
        ratio = float((values[..., -1] / values[..., 0]).nan_to_num(0.0).amin())
        raise ConfigError(
            f"the smallest eigenvalue of the kernel is {ratio:.2g} times the largest, expected none below zero but by"
            " rounding: compute the kernel in float64, or set rtol above its relative error."
        )


def _check_shapes(
    kernel: Tensor, y: Tensor, test_kernel: Tensor | None, start: Tensor | None, test_start: Tensor | None
) -> None:
    check_square(kernel)
    if y.ndim not in (1, 2) or is_class_index(y):
        raise ConfigError(
            f"targets {y.dtype} of shape {tuple(y.shape)} came to a regression, expected floats (n,) or (n, c): give"
            " classes as one-hot targets."
        )
    size = kernel.shape[-1]
    if size not in (len(y), y.numel()):
        raise ConfigError(
            f"a kernel of {size} rows came with targets of shape {tuple(y.shape)}, expected {len(y)} rows, or"
            f" {y.numel()} for pairs of sample and output: compute the kernel on the samples of the targets."
        )
    if start is not None and start.shape[-y.ndim :] != y.shape:
        raise ConfigError(
            f"the outputs at the start have shape {tuple(start.shape)} and the targets {tuple(y.shape)}, expected the"
            " last axes to be equal: reshape the outputs."
        )
    _check_test_shapes(y, size, test_kernel, test_start)


def _check_test_shapes(y: Tensor, size: int, test_kernel: Tensor | None, test_start: Tensor | None) -> None:
    if test_kernel is None:
        if test_start is not None:
            raise ConfigError("test outputs at the start came without a test kernel: give both or neither.")
        return
    per_sample = size // len(y)
    if test_kernel.ndim < 2 or test_kernel.shape[-1] != size or test_kernel.shape[-2] % per_sample:
        raise ConfigError(
            f"the test kernel has shape {tuple(test_kernel.shape)}, expected (..., m, {size}) with test samples in"
            " rows: transpose it, or compute it with the training samples."
        )
    expected = (test_kernel.shape[-2] // per_sample, *y.shape[1:])
    if test_start is not None and test_start.shape[-y.ndim :] != expected:
        raise ConfigError(
            f"the test outputs at the start have shape {tuple(test_start.shape)}, expected {expected} as the last"
            " axes: reshape the outputs."
        )
