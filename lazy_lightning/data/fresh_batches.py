"""The train loader of online training: samples that are drawn for each step and used once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lazy_lightning.data.mini_batches import MiniBatches
from lazy_lightning.data.split import Split


class FreshBatches(MiniBatches):
    """Batches ``(x, y)`` of new samples, as many in an epoch as a training set has; no sample occurs twice.

    The samples of epoch k depend on the seed and k alone, so training goes on to the bit from the middle of an epoch.

    Args:
        split: a set of the size of an epoch; none of its samples is handed out.
        batch_size: of a batch.
        seed: of the samples.
        draw: the samples of an epoch, from their number, the epoch and the seed.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, draw: Callable[[int, int, int], Split]) -> None:
        super().__init__(split, batch_size, seed)
        self._draw = draw

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The batches of any epoch from one on, wherever training is."""
        new = self._draw(len(self.split.y), epoch, self.seed)
        parts = zip(torch.split(new.x, self.batch_size), torch.split(new.y, self.batch_size), strict=True)
        for batch, samples in enumerate(parts):
            if batch >= start:
                yield samples
