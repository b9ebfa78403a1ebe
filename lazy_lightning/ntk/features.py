"""A kernel as a linear model: features Phi with Phi Phi^T = K, as many as there are training samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.memory import require_bytes
from lazy_lightning.ntk.one_device import require_one_device
from lazy_lightning.ntk.spectrum import eigensystem

_MATRICES = 6
"""As large as the kernel, that its decomposition holds at once."""


def require_decomposable(kernels: int, rows: int, device: torch.device, remedy: str) -> None:
    """Lets pass kernels that can be decomposed in the available memory; to be called before they are computed.

    Raises:
        RunError: otherwise, with both sizes and what to do.
    """
    what = f"decomposing {kernels} kernel{'s' * (kernels > 1)} of {rows} x {rows} entries"
    require_bytes(_MATRICES * kernels * rows**2 * torch.float64.itemsize, device, what, remedy)


@dataclass(frozen=True)
class KernelFeatures:
    """Phi = K^(1/2) = V Lambda^(1/2) V^T of K = V Lambda V^T, and by the same basis the features of any other sample.

    The map from the weights' displacement J^T u to v = K^(1/2) u keeps norms, so that a flow of v has the gradients,
    the step sizes and the stops of the flow of the weights it stands for. Of all square roots of K, the symmetric one
    does not depend on the signs and order of eigenvectors, which differ between machines: v means the same on each.
    Directions up to ``rtol`` lambda_max are rounding, and are left out of all features.
    """

    train: Tensor
    """(..., n, n) Phi, in the dtype of the kernel."""
    vectors: Tensor
    """(..., n, n) V, in float64."""
    inverse_roots: Tensor
    """(..., n) Lambda^(-1/2) in float64, zero in the directions left out."""

    @classmethod
    def of(cls, kernel: Tensor) -> KernelFeatures:
        """From the kernel of the training samples, (..., n, n).

        Raises:
            ConfigError: if it is not square, or has an eigenvalue below zero by more than rounding.

        >>> KernelFeatures.of(torch.tensor([[5.0, 4.0], [4.0, 5.0]])).train
        tensor([[2., 1.],
                [1., 2.]])
        """
        values, vectors = eigensystem(kernel)
        # What rounding leaves: of the entries, and of the n-fold sums in their decomposition.
        rtol = max(8 * torch.finfo(kernel.dtype).eps, kernel.shape[-1] * torch.finfo(torch.float64).eps)
        cutoff = rtol * values[..., :1].clamp_min(0)
        negative = (values < -cutoff).any(dim=-1)
        if bool(negative.any()):
            worst = values[negative]
            raise ConfigError(
                f"a kernel has the eigenvalue {float(worst.min()):.3g} beside {float(worst.max()):.3g}, expected "
                "none below zero: compute it in float64, between one set of samples and itself"
            )
        roots = torch.where(values > cutoff, values, 0.0).sqrt()
        inverse = torch.where(values > cutoff, values.rsqrt(), 0.0)
        return cls(((vectors * roots.unsqueeze(-2)) @ vectors.mT).to(kernel.dtype), vectors, inverse)

    @property
    def rank(self) -> Tensor:
        """(...,) directions that are not rounding."""
        return (self.inverse_roots != 0).sum(dim=-1)

    def of_others(self, cross: Tensor) -> Tensor:
        """The features (..., m, n) of other samples from their kernel (..., m, n) with the training samples."""
        require_one_device(vectors=self.vectors, cross=cross)
        # In this order, rounding stays in the direction that it comes from; the small ones amplify theirs.
        scaled = (cross.double() @ self.vectors) * self.inverse_roots.unsqueeze(-2)
        return (scaled @ self.vectors.mT).to(cross.dtype)
