"""Checks of the sizes of bundled networks."""

from __future__ import annotations

from lazy_lightning.errors import ConfigError

MAX_DEPTH = 10_000
"""Layers that a bundled network may have: each is a module, and far more take minutes to build."""


def require_size(name: str, value: int, least: int = 1) -> None:
    """Raises ConfigError for a size below ``least``."""
    if value < least:
        raise ConfigError(f"{name} is {value}, expected an integer >= {least}: set a larger {name}.")


def require_depth(depth: int, least: int = 1, name: str = "depth") -> None:
    """Raises ConfigError for a number of layers below ``least`` or beyond :data:`MAX_DEPTH`."""
    require_size(name, depth, least)
    if depth > MAX_DEPTH:
        raise ConfigError(f"{name} is {depth}, expected at most {MAX_DEPTH} layers: set a smaller {name}.")
