"""A kernel as a linear model: features Phi with Phi Phi^T = K, one a direction that training can move in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.spectrum import eigensystem


@dataclass(frozen=True)
class KernelFeatures:
    """Phi = V Lambda^(1/2) of K = V Lambda V^T, and by the same basis the features of any other sample.

    The map from the weights' displacement J^T u to v = Lambda^(1/2) V^T u keeps norms, so that a flow of v has the
    gradients, the step sizes and the stops of the flow of the weights it stands for. Directions up to
    ``rtol`` lambda_max are rounding, and are zero in all features.
    """

    train: Tensor
    """(..., n, n) Phi, in the dtype of the kernel."""
    basis: Tensor
    """(..., n, n) V Lambda^(-1/2), in float64."""

    @classmethod
    def of(cls, kernel: Tensor) -> KernelFeatures:
        """From the kernel of the training samples, (..., n, n).

        Raises:
            ConfigError: if it is not square, or has an eigenvalue below zero by more than rounding.
        """
        values, vectors = eigensystem(kernel)
        # What rounding leaves: of the entries, and of the n-fold sums in their decomposition.
        rtol = max(8 * torch.finfo(kernel.dtype).eps, kernel.shape[-1] * torch.finfo(torch.float64).eps)
        cutoff = rtol * values[..., :1].clamp_min(0)
        if bool((values < -cutoff).any()):
            raise ConfigError(
                f"a kernel has the eigenvalue {float(values.min()):.3g} beside {float(values.max()):.3g}, expected "
                "none below zero: compute it in float64, between one set of samples and itself"
            )
        roots = values.clamp_min(0).sqrt()
        inverse = torch.where(values > cutoff, 1 / roots, 0.0)
        kept = torch.where(values > cutoff, roots, 0.0)
        return cls((vectors * kept.unsqueeze(-2)).to(kernel.dtype), vectors * inverse.unsqueeze(-2))

    @property
    def rank(self) -> Tensor:
        """(...,) directions that are not rounding."""
        return (self.basis != 0).any(dim=-2).sum(dim=-1)

    def of_others(self, cross: Tensor) -> Tensor:
        """The features (..., m, n) of other samples from their kernel (..., m, n) with the training samples."""
        return (cross.double() @ self.basis).to(cross.dtype)
