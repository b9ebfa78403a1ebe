"""A learning rate that decays as one over the epoch: the schedule of arXiv:1812.07956."""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError


class InverseDecay(LambdaLR):
    """lr_k = lr_0 / (1 + c k) after k epochs (or steps, if it is stepped once a step); c = 1/3 in the paper's runs.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    >>> schedule = InverseDecay(optimizer, c=1.0)
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.2]

    Args:
        optimizer: whose groups each decay from their own rate.
        c: how fast.

    Raises:
        ConfigError: ``c`` is negative or not finite.
    """

    def __init__(self, optimizer: Optimizer, c: float = 1 / 3) -> None:
        check_arguments(InverseDecay, locals())
        if not (math.isfinite(c) and c >= 0):
            raise ConfigError(f"InverseDecay got c = {c}, expected a number >= 0: 1/3 is the paper's, 0 no decay")
        super().__init__(optimizer, partial(inverse, c=c))


def inverse(epoch: int, c: float) -> float:
    """1 / (1 + c epoch)."""
    return 1.0 / (1.0 + c * epoch)
