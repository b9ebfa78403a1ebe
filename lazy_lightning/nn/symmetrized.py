"""The doubling trick: a network that starts at zero because it is the difference of two equal ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.nn.construction import construct


class Symmetrized(nn.Module):
    """f(w, x) = (g(u, x) - g(v, x)) / sqrt(2) with u = v at the start, so f(w0, x) = 0 (arXiv:1812.07956).

    Its tangent kernel at the start is that of g: half of each copy's. So lazy training is that of the centred g, with
    nothing to subtract. As the network of a module, with the shapes still taken from the data::

        network:
          class_path: lazy_lightning.nn.Symmetrized
          init_args:
            network: {class_path: lazy_lightning.nn.CNN, init_args: {width: 16}}

    Args:
        network: builds g; called with ``input_shape`` and ``num_outputs`` if it has arguments of these names. Or g
            itself, of which copies are taken.
        input_shape: shape of one sample, passed on; filled in from the data in a run.
        num_outputs: outputs per sample, likewise.

    >>> import torch
    >>> net = Symmetrized(nn.Linear(3, 2))
    >>> net(torch.ones(1, 3)).tolist()
    [[0.0, 0.0]]
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        input_shape: Sequence[int] | int | None = None,
        num_outputs: int | None = None,
    ) -> None:
        check_arguments(Symmetrized, locals())
        super().__init__()
        if not isinstance(network, nn.Module):
            network = construct(network, input_shape, num_outputs)
        self.plus = copy.deepcopy(network)
        self.minus = copy.deepcopy(network)
        if isinstance(width := getattr(network, "width", None), int):
            self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """f(w, x), of the shape of g's outputs."""
        difference: Tensor = self.plus(x) - self.minus(x)
        return difference * math.sqrt(0.5)
