"""SampleRanks: the processes that divide the training set among them, and what they exchange on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp

from lazy_lightning.errors import ConfigError


class SampleRanks:
    """The processes that train the same members, each on a slice of the training samples.

    Args:
        rank: of this process among them.
        count: of these processes.
        group: of them, for tensors on the device; None for a single process.
        first: rank within the whole run of the first of them, whose decisions hold.
        together: calls an exchange, and reports a process that has ended.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        group: ProcessGroup | Any = None,
        first: int = 0,
        together: Callable[[Callable[[], Any]], Any] = lambda exchange: exchange(),
    ) -> None:
        self.rank, self.count, self.group, self.first = rank, count, group, first
        self._together = together

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of them."""
        return self.rank == 0

    def rows(self, samples: int) -> slice:
        """Returns the samples of this process: contiguous, in numbers that differ by one at most.

        Raises:
            ConfigError: there are fewer samples than processes.

        >>> [SampleRanks(rank, 3).rows(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        if samples < self.count:
            raise ConfigError(
                f"the training set has {samples} sample{'s' * (samples > 1)} for {self.count} devices, each of which "
                f"holds at least one: set --trainer.devices {samples} or less, or --model.shard members"
            )
        return slice(samples * self.rank // self.count, samples * (self.rank + 1) // self.count)

    def sum(self, x: Tensor) -> Tensor:
        """Adds ``x`` up over the processes, in place; all get the same numbers to the bit."""
        if self.count > 1:
            self._together(lambda: torch.distributed.all_reduce(x, ReduceOp.SUM, group=self.group))
        return x

    def of_first(self, x: Tensor) -> Tensor:
        """Overwrites ``x`` by that of the first process, and returns it."""
        return self.of(0, x)

    def of(self, rank: int, x: Tensor) -> Tensor:
        """Overwrites ``x`` by that of the process with this rank among them, and returns it."""
        if self.count > 1:
            self._together(lambda: torch.distributed.broadcast(x, self.first + rank, group=self.group))
        return x
