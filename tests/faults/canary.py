"""``faults_canary``: a package whose classes and functions a configuration must not call; they note it if it does."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Net(nn.Module):
    """A network that a configuration may name; its arguments say nothing of what they take."""

    def __init__(
        self, input_shape: tuple[int, ...] = (8, 8), num_outputs: int = 1, untyped=None, anything: object = None
    ):
        super().__init__()
        self.head = nn.Linear(torch.Size(input_shape).numel(), num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)).squeeze(-1)


@contextmanager
def canary() -> Iterator[list[str]]:
    """The package while it lasts; yields what was called, which should stay empty."""
    called: list[str] = []

    class Canary:
        def __init__(self, *args: object, **options: object) -> None:
            called.append("class")

        def __call__(self, *args: object, **options: object) -> None:
            called.append("object")

        @classmethod
        def make(cls, *args: object, **options: object) -> None:
            called.append("class method")

    def effect(*args: object, **options: object):
        called.append("function")

    package = types.ModuleType("faults_canary")
    for thing in (Canary, Net, effect):
        thing.__module__, thing.__qualname__ = package.__name__, thing.__name__
        setattr(package, thing.__name__, thing)
    package.instance = object.__new__(Canary)  # type: ignore[attr-defined]
    package.bound = package.instance.__call__  # type: ignore[attr-defined]
    sys.modules[package.__name__] = package
    try:
        yield called
    finally:
        del sys.modules[package.__name__]
