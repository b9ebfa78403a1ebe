"""The convolutional networks at sizes for tests, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazy_lightning.nn import CNN, VGG, ResNet18, WideResNet

Build = Callable[..., nn.Module]

BUILDS: dict[str, Build] = {
    "CNN": functools.partial(CNN, width=3, stages=2, layers=2, filter_size=3),
    "CNN growing": functools.partial(CNN, width=3, stages=2, layers=1, growth=2.0, stride_first=False, padding=2),
    "WideResNet": functools.partial(WideResNet, 10, widening=0.15, stem=3, activation="swish"),
    "VGG": functools.partial(VGG, 11, widening=1 / 21),
    "ResNet18": functools.partial(ResNet18, widening=1 / 21),
    "ResNet18 mixed": functools.partial(ResNet18, widening=1 / 21, angle=30.0),
}
SHAPE = (2, 8, 8)


def built(build: Build, seed: int = 0, **options: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**{"input_shape": SHAPE, **options}).double()


def images(n: int = 4, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
