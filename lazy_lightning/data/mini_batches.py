"""The train loader of mini-batch training: a new order every epoch, and a place that can be gone back to."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lazy_lightning.data.augmentation import Augmentation
from lazy_lightning.data.split import Split
from lazy_lightning.seeding import generator


class MiniBatches:
    """Batches ``(x, y)`` of a set that lies in memory; the last one of an epoch may be shorter.

    The order of epoch k depends on the seed and k alone, and so do its augmented images. The state is the place of the
    next batch, so training goes on to the bit from the middle of an epoch. (A Trainer does not fetch ahead from a
    loader that has a length.)

    Args:
        split: the samples.
        batch_size: of a batch.
        seed: of the orders.
        augmentation: applied to the inputs of each batch.

    >>> split = Split(torch.arange(5.0), torch.arange(5), torch.arange(5))
    >>> batches = MiniBatches(split, batch_size=2, seed=0)
    >>> len(batches), [len(y) for x, y in batches]
    (3, [2, 2, 1])
    >>> batches.state_dict()
    {'epoch': 1, 'batch': 0}
    """

    def __init__(self, split: Split, batch_size: int, seed: int, augmentation: Augmentation | None = None) -> None:
        self.split, self.batch_size, self.seed, self.augmentation = split, batch_size, seed, augmentation
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return -(-len(self.split.y) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """The rest of the present epoch, or the next one."""
        state = self.state_dict()
        self._epoch, self._batch = state["epoch"], state["batch"]
        for batch in self.epoch(self._epoch, start=self._batch):
            self._batch += 1  # before it is handed out: what has been handed out counts as done
            yield batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The batches of any epoch from one on, wherever training is."""
        for batch, rows in enumerate(torch.split(self.order(epoch), self.batch_size)):
            if batch >= start:
                yield self._inputs(rows, epoch, batch), self.split.y[rows]

    def order(self, epoch: int) -> Tensor:
        """(n,) int64 the order of the samples in an epoch."""
        return torch.randperm(len(self.split.y), generator=generator(f"data/batches/{epoch}", self.seed))

    def _inputs(self, rows: Tensor, epoch: int, batch: int) -> Tensor:
        x = self.split.x[rows]
        return x if self.augmentation is None else self.augmentation(x, self.seed, epoch, batch)

    def state_dict(self) -> dict[str, int]:
        """The place of the next batch."""
        if self._batch >= len(self):
            return {"epoch": self._epoch + 1, "batch": 0}
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there."""
        self._epoch, self._batch = state["epoch"], state["batch"]
