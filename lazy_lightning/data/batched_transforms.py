"""torchvision's transforms over a batch, with a draw for each image: the common ones at once, the others in a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

Batched = Callable[[Tensor], Tensor]
"""From images (b, channels, height, width) to as many images."""


def batched(transform: nn.Module) -> Batched:
    """The same random change of images, drawn for each of them by torch's global generator.

    A transform of ``torchvision.transforms.v2`` draws once a call, so a batch that it were given would be moved as one.
    Flips and crops (at any padding with zeros) are made here of the whole batch; all others are applied image by image,
    ten times as slow. Of these two the distribution is torchvision's, the draws are not.

    Args:
        transform: of images (channels, height, width).
    """
    if type(transform) is v2.RandomHorizontalFlip:
        return _Flip(cast(float, transform.p), -1)
    if type(transform) is v2.RandomVerticalFlip:
        return _Flip(cast(float, transform.p), -2)
    if type(transform) is v2.RandomCrop and _pads_with_zeros(transform):
        height, width = cast(list[int], transform.size)
        return _Crop((height, width), cast(list[int], transform.padding or [0, 0, 0, 0]))
    return lambda x: torch.stack([transform(image) for image in x])


def _pads_with_zeros(crop: v2.RandomCrop) -> bool:
    return not crop.pad_if_needed and crop.fill in (0, None) and crop.padding_mode == "constant"


class _Flip:
    """Mirrors each image along an axis, with probability p."""

    def __init__(self, p: float, axis: int) -> None:
        self.p, self.axis = p, axis

    def __call__(self, x: Tensor) -> Tensor:
        flipped = torch.rand(len(x), 1, 1, 1) < self.p
        return torch.where(flipped.to(x.device), x.flip(self.axis), x)


class _Crop:
    """Takes a window of each image, anywhere in what it is with its margins of zeros."""

    def __init__(self, size: tuple[int, int], margins: list[int]) -> None:
        self.size, self.margins = size, margins
        """(height, width); left, right, top, bottom"""

    def __call__(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.margins)
        height, width = self.size
        if height > padded.shape[-2] or width > padded.shape[-1]:
            raise ValueError(
                f"a crop of {height} x {width} pixels does not fit into images of {padded.shape[-2]} x "
                f"{padded.shape[-1]}, with their padding"
            )
        windows = padded.unfold(-2, height, 1).unfold(-2, width, 1)  # (b, channels, rows, columns, height, width)
        top, left = (torch.randint(places, (len(x),)).to(x.device) for places in windows.shape[2:4])
        return windows[torch.arange(len(x), device=x.device), :, top, left]
