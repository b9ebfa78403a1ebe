"""The kernel by autograd on a few samples, with which every faster method is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.independence import AGREEMENT, COARSE
from lazy_lightning.ntk.jacobian import mapped_rows
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_of, gradients_on


@dataclass(frozen=True)
class Trial:
    """Gradients by autograd, one backward pass a sample."""

    model: TangentModel
    x: Tensor
    cotangent: Tensor
    """(n, c) of random numbers v, others for each sample; what is compared are the gradients of sum_k v_k f_k."""
    gradients: Mapping[str, tuple[Tensor, ...]]
    """(n, P) for each parameter of a layer."""

    @classmethod
    def of(cls, model: TangentModel, parameters: Mapping[str, list[str]], x: Tensor) -> Trial:
        """The trial of a model of one member on some samples."""
        params = {name: p[0].detach().requires_grad_() for name, p in model.params.items()}
        buffers = {**model.shared_buffers, **{name: b[0] for name, b in model.member_buffers.items()}}
        wanted = [params[name] for own in parameters.values() for name in own]
        with gradients_on():
            outputs = model.call(params, buffers, x)
            cotangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            cotangent = cotangent.to(model.device, model.dtype)
            values = (outputs * cotangent).sum(dim=1)
            rows = [gradients_of(value, wanted) for value in values]
        stacks = iter([torch.stack(own).reshape(len(x), -1) for own in zip(*rows, strict=True)])
        by_layer = {layer: tuple(next(stacks) for _ in own) for layer, own in parameters.items()}
        return cls(model, x, cotangent, by_layer)

    def kernel(self, layer: str) -> Tensor:
        """(n, n) the part of one layer in the kernel of sum_k v_k f_k."""
        return torch.stack([g @ g.mT for g in self.gradients[layer]]).sum(dim=0)

    def verdict(self, layer: str, found: Tensor) -> bool | None:
        """Whether ``found`` (n, n) is that part; None if it is zero for all samples, which proves nothing.

        Each entry is compared relative to the roots of its two diagonal entries, so a pair of small gradients counts
        as much as one of large gradients.
        """
        expected = self.kernel(layer)
        root = expected.diagonal().sqrt()
        same = (found - expected).abs() <= self._tolerance * root.unsqueeze(0) * root.unsqueeze(1)
        good, silent = torch.stack([same.all(), (root == 0).all()]).tolist()
        return (None if silent else True) if good else False

    def can_be_mapped(self, parameters: Mapping[str, Sequence[str]]) -> bool:
        """Whether ``torch.func`` gives what autograd gives: of PReLU it gives wrong numbers when n = c, else none."""
        names = [name for own in parameters.values() for name in own]
        if not names:
            return True
        try:
            with gradients_on():
                rows = mapped_rows(self.model, names, self.x)[0]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ConfigError):
            return False
        found = torch.einsum("ncp,nc->np", rows, self.cotangent)
        expected = torch.cat([torch.cat(self.gradients[layer], dim=1) for layer in parameters], dim=1)
        sizes = [gradient.shape[1] for layer in parameters for gradient in self.gradients[layer]]
        pairs = zip(torch.split(found, sizes, dim=1), torch.split(expected, sizes, dim=1), strict=True)
        return bool(torch.stack([((a - b).norm() <= self._tolerance * b.norm()) for a, b in pairs]).all())

    @property
    def _tolerance(self) -> float:
        return AGREEMENT.get(self.model.dtype, COARSE)
