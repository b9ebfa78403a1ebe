"""Weight decay: a quadratic penalty on the distance of the weights from zero or from their start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError

DecayTo = Literal["zero", "start"]


@dataclass(frozen=True)
class WeightDecay:
    """Adds (rate/2) norm(w - c)^2 to L = 1/(alpha^2 n) sum ell, with c = 0 or c = w0.

    Its gradient is rate (w - c), whatever alpha is. Reported losses do not contain it.

    Raises:
        ConfigError: the rate is negative or not finite, or the point is neither ``zero`` nor ``start``.
    """

    rate: float = 0.0
    to: DecayTo = "zero"

    def __post_init__(self) -> None:
        check_arguments(WeightDecay, vars(self))
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ConfigError(f"decay_rate is {self.rate}, expected a finite number >= 0: 0 is no weight decay")
        if self.to not in get_args(DecayTo):
            raise ConfigError(f"decay_to is {self.to!r}, expected 'zero' or 'start': choose one of the two")

    def distance(self, displacement: Tensor, w0: Tensor) -> Tensor:
        """(E, N) w - c, from dw = w - w0 and w0, both (E, N)."""
        return displacement if self.to == "start" else w0 + displacement

    def penalty(self, displacement: Tensor, w0: Tensor) -> Tensor:
        """() the sum over members of (rate/2) norm(w - c)^2."""
        return (0.5 * self.rate) * self.distance(displacement, w0).square().sum()
