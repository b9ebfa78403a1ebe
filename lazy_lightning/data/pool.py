"""All samples a source offers, before labels, splits and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.seeding import generator


class Pool(NamedTuple):
    """A source's samples in their own order.

    Attributes:
        x: ``(n, *input_shape)`` in the dtype of the file: uint8 pixels stay eight times smaller than float64
            until the splits are known.
        y: ``(n,)`` int64, the original classes; or ``(n,)`` or ``(n, c)`` float64, real-valued targets.
        official_test: ``(n,)`` bool, true for samples of the official test part; None where the source has
            no official parts.
    """

    x: Tensor
    y: Tensor
    official_test: Tensor | None = None


def join_parts(train: Pool | None, test: Pool | None) -> Pool:
    """The official train part followed by the official test part; at least one must be there."""
    parts = [(part, flag) for part, flag in ((train, False), (test, True)) if part is not None]
    return Pool(
        torch.cat([part.x for part, _ in parts]),
        torch.cat([part.y for part, _ in parts]),
        torch.cat([torch.full((len(part.y),), flag) for part, flag in parts]),
    )


def with_channels(x: Tensor) -> Tensor:
    """Grey images ``(n, H, W)`` as ``(n, 1, H, W)``; every other shape unchanged.

    >>> with_channels(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """
    return x.unsqueeze(1) if x.ndim == 3 else x


def as_float(x: Tensor) -> Tensor:
    """Inputs as float64; uint8 pixels become x / 255, in 0..1.

    >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000], dtype=torch.float64)
    """
    return x.double() / 255 if x.dtype == torch.uint8 else x.double()


def uniform_pixels(shape: Sequence[int]) -> Tensor:
    """Noise in the place of images: uint8 pixels of this shape, independent and uniform on 0, ..., 255.

    The noise of a shape is always the same, so sets drawn from it are as reproducible as those of images.

    >>> uniform_pixels((2, 1, 2, 2)).shape
    torch.Size([2, 1, 2, 2])
    """
    stream = generator("data/random_pixels", 0)
    return torch.randint(256, tuple(shape), dtype=torch.uint8, generator=stream)
