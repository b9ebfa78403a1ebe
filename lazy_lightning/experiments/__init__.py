"""Sweeps: what they train, in which batches, by which workers."""

from typing import Any

from lazy_lightning.deprecations import renamed


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
