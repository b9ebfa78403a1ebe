"""Sweeps: the grid of configurations, its division into batches, and the workers that train them."""

from typing import Any

from lazy_lightning.deprecations import renamed


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
