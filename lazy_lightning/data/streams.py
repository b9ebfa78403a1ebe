"""Data made from random streams: each set from a stream of its own, a smaller set the beginning of a larger one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.flow_data import FlowData, Prepared
from lazy_lightning.data.fresh_batches import FreshBatches
from lazy_lightning.data.mini_batches import MiniBatches
from lazy_lightning.data.split import Split, Task
from lazy_lightning.errors import ConfigError
from lazy_lightning.seeding import generator

_ROWS = 1024


def normal_rows(n: int, d: int, purpose: str, seed: int) -> Tensor:
    """``(n, d)`` float64 standard normal numbers; fewer rows are the beginning of more rows.

    Rows are drawn in whole blocks, as the sampler of normal numbers treats the end of an array apart and its
    results for one size are not the beginning of those for another.

    >>> torch.equal(normal_rows(5, 3, "data/test", 0), normal_rows(2000, 3, "data/test", 0)[:5])
    True
    """
    stream = generator(purpose, seed)
    blocks = [torch.randn(_ROWS, d, dtype=torch.float64, generator=stream) for _ in range(1 + n // _ROWS)]
    return torch.cat(blocks)[:n].clone()


class StreamedTask(FlowData):
    """Samples made from rows of standard normal numbers; one network output.

    Train, test, kernel and validation sets come from streams of their own, so each depends on its own seed only.
    ``Split.index`` counts within the set's own stream.

    Args:
        d: number of inputs; subclasses restrict it.
        online: in mini-batch training, draw new samples for each step instead of passing through the training set
            again. The training set is then observed and never trained on; ``n_train`` is the length of an epoch.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: ``online`` without a ``batch_size``.
    """

    kind: ClassVar[Task]

    def __init__(self, d: int, online: bool = False, **options: Any) -> None:
        check_arguments(StreamedTask, locals())
        super().__init__(**options)
        self.d = d
        self.online = online
        if online and self.batch_size is None:
            raise ConfigError(
                "online is true, but a flow follows one training set: set data.batch_size, or online to false"
            )

    @abstractmethod
    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs ``(n, d)`` and targets ``(n,)`` made from standard normal numbers ``(n, d)``."""

    def build(self) -> Prepared:
        """Draws the samples of all sets."""
        return Prepared(
            self._split("train", self.n_train, self.train_seed),
            self._split("test", self.n_test, self.test_seed),
            self._split("kernel", self.n_kernel, self.kernel_seed),
            num_outputs=1,
            task=self.kind,
            val=self._split("val", self.n_val, self.val_seed),
        )

    def fresh(self, n: int, draw: int) -> Split:
        """``n`` samples that are in none of the sets, others for each ``draw`` >= 0."""
        return self._split("fresh", n, draw)

    def mini_batches(self, seed: int | None = None) -> MiniBatches:
        """From the first epoch on: of the training set, or of new samples if ``online``."""
        if not self.online or self.batch_size is None:
            return super().mini_batches(seed)
        order = self.train_seed if seed is None else seed
        return FreshBatches(self.train, self.batch_size, order, self._online_samples)

    def _online_samples(self, n: int, epoch: int, seed: int) -> Split:
        return self._split(f"online/{epoch}", n, seed)

    def _split(self, name: str, n: int, seed: int) -> Split:
        return Split(*self.samples(normal_rows(n, self.d, f"data/{name}", seed)), torch.arange(n))
