"""The parameters of an optimizer seen as one (E, N) matrix, one row a member."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ParameterRows:
    """Gathers tensors of shape (E, ...) into rows of N weights, and publishes rows back to them.

    With ``members=None`` the tensors have no member axis and together make the one row of E = 1. A single
    parameter of shape (E, N) is used where it lies, without a copy.
    """

    def __init__(self, parameters: Sequence[Tensor], members: int | None) -> None:
        self.parameters = list(parameters)
        self.members = members
        self._check()
        self._in_place = len(self.parameters) == 1 and self.parameters[0].ndim == 2 and members is not None

    def _check(self) -> None:
        first = self.parameters[0]
        for p in self.parameters:
            if self.members is not None and (p.ndim == 0 or p.shape[0] != self.members):
                raise ValueError(
                    f"every parameter must have the member axis first, of size {self.members}, "
                    f"but one has shape {tuple(p.shape)}"
                )
            if p.dtype != first.dtype or p.device != first.device:
                raise ValueError(
                    "all parameters of a MomentumFlow must share one dtype and one device, but it has "
                    f"{first.dtype} on {first.device} and {p.dtype} on {p.device}"
                )

    def gather(self) -> Tensor:
        """(E, N) a copy of the present weights."""
        rows = self.members or 1
        return torch.cat([p.detach().reshape(rows, -1) for p in self.parameters], dim=1)

    def buffer(self, rows: int) -> Tensor:
        """(rows, N) where trial weights are to be written before :meth:`publish`."""
        first = self.parameters[0]
        if self._in_place and first.shape[0] == rows:
            return first.data
        count = sum(p.numel() for p in self.parameters) // (first.shape[0] if self.members is not None else 1)
        return first.data.new_empty(rows, count)

    def publish(self, weights: Tensor) -> None:
        """Makes the parameters hold ``weights`` (rows, N); with fewer rows than E they shrink along with it."""
        if self._in_place:
            _replace_data(self.parameters[0], weights)
            return
        sizes = [p[0].numel() if self.members is not None else p.numel() for p in self.parameters]
        for p, block in zip(self.parameters, torch.split(weights, sizes, dim=1), strict=True):
            if self.members is None:
                p.data.copy_(block.view(p.shape))
            else:
                _replace_data(p, block.reshape(len(weights), *p.shape[1:]))

    def clear_gradients(self) -> None:
        """Forgets the gradients, so that the closure's backward writes fresh ones."""
        for p in self.parameters:
            p.grad = None

    def gradient(self) -> Tensor:
        """(rows, N) the gradient left by the closure.

        Raises:
            RuntimeError: if the closure left none.
        """
        missing = [i for i, p in enumerate(self.parameters) if p.grad is None]
        if missing:
            raise RuntimeError(
                f"the closure left no gradient in parameter {missing[0]} of {len(self.parameters)}: "
                "it must call backward() on the sum of the members' losses, and every parameter must be used"
            )
        if self._in_place:
            return self.parameters[0].grad  # type: ignore[return-value]  # just checked
        rows = self.parameters[0].shape[0] if self.members is not None else 1
        return torch.cat([p.grad.reshape(rows, -1) for p in self.parameters if p.grad is not None], dim=1)


def _replace_data(parameter: Tensor, data: Tensor) -> None:
    """Lets a parameter hold other rows, also if a graph of an earlier evaluation is still referenced.

    Such a graph keeps alive the node that adds up the parameter's gradient, and with it the old shape, which a backward
    pass at another shape would be checked against. torch forgets the node when the dtype changes, and only then.
    """
    if parameter.shape != data.shape:
        other = torch.float64 if parameter.dtype != torch.float64 else torch.float32
        parameter.data = data.new_empty(0, dtype=other)
    parameter.data = data
