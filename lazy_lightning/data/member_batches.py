"""The train loader of members whose batches are their own: other orders of one training set, or other training sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lazy_lightning.data.mini_batches import MiniBatches


class MemberBatches(MiniBatches):
    """The batches of K loaders of equal length, beside each other; each is what its loader yields alone.

    A batch is ``(rows,)``, (K, b) int64, the positions of the samples in their training sets, which the module gathers
    on its device. Where a loader makes its inputs, as augmentation and online samples do, it is ``(x, y)``, (K, b, ...)
    each. The state is the place of the next batch, as of one loader.

    Args:
        loaders: of equally large sets and equal batch sizes.
    """

    def __init__(self, loaders: Sequence[MiniBatches]) -> None:
        first = loaders[0]
        super().__init__(first.split, first.batch_size, first.seed)
        self.loaders = tuple(loaders)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The batches of any epoch from one on, wherever training is."""
        if all(type(loader) is MiniBatches and loader.augmentation is None for loader in self.loaders):
            orders = torch.stack([loader.order(epoch) for loader in self.loaders])
            yield from ((rows,) for rows in torch.split(orders, self.batch_size, dim=1)[start:])
            return
        for batches in zip(*(loader.epoch(epoch, start) for loader in self.loaders), strict=True):
            yield tuple(torch.stack(part) for part in zip(*batches, strict=True))
