"""A committee of quadratic neurons, of which the first layer is trained alone (arXiv:2310.06110)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.data_shapes import resolved_shapes


class QuadraticCommittee(nn.Module):
    """f(x) = (1/m) sum_j phi(a_j . x), phi(z) = z + epsilon z^2/2: (n, *input_shape) -> (n, 1).

    The a_j start as N(0, 1) and are all that is trained: the head is the mean. For inputs x ~ N(0, 1/d) the tangent
    kernel at the start is (x . x')(1 + epsilon^2 x . x')/m for many neurons, so ``epsilon`` sets the alignment of a
    lazy network with quadratic targets. The kernel's factor 1/m makes flow times proportional to m.

    Args:
        width: neurons m.
        epsilon: strength of the quadratic part of phi.
        input_shape: shape of one sample, filled in from the data when the configuration leaves it.
        num_outputs: outputs per sample, filled in likewise; 1 only.

    Raises:
        ConfigError: a value out of range, or several outputs.
    """

    def __init__(
        self,
        width: int = 500,
        epsilon: float = 0.25,
        *,
        input_shape: Sequence[int] | int | None = None,
        num_outputs: int = 1,
    ) -> None:
        check_arguments(QuadraticCommittee, locals())
        super().__init__()
        if width < 1 or not math.isfinite(epsilon):
            raise ConfigError(
                f"a committee needs width >= 1 and a finite epsilon, got width = {width} and epsilon = {epsilon}"
            )
        self.width, self.epsilon = width, epsilon
        self.input_shape, self.num_outputs = resolved_shapes(input_shape, num_outputs)
        if self.num_outputs != 1:
            raise ConfigError(f"a committee has one output, got num_outputs = {num_outputs}: choose TwoLayer or FC")
        self.hidden = nn.Linear(math.prod(self.input_shape), width, bias=False)
        nn.init.normal_(self.hidden.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(w, x), (n, 1)."""
        z: Tensor = self.hidden(x.flatten(1))
        return (z + (0.5 * self.epsilon) * z * z).mean(dim=1, keepdim=True)
