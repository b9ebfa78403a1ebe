"""The quantity in which scales are stated, for reports and tables: alpha, sqrt(h) alpha or the richness gamma.

This module does not import matplotlib. The labels are in :mod:`~lazy_lightning.figures.scale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import pandas as pd

from lazy_lightning.errors import ConfigError

Scale = Literal["alpha", "sqrt_h_alpha", "gamma"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""The quantities; gamma is the richness 1/(sqrt(h) alpha)."""

_stated: ContextVar[Scale | None] = ContextVar("stated_scale", default=None)


@contextmanager
def stated_scale(scale: str | None) -> Iterator[None]:
    """States scales as ``alpha``, ``sqrt_h_alpha`` or ``gamma`` within a context; None keeps each figure's own.

    Raises:
        ConfigError: the name is another.

    >>> with stated_scale("gamma"):
    ...     scale_value(100.0, 0.05)
    2.0
    """
    if scale is not None and scale not in SCALES:
        raise ConfigError(f"the scale is {scale!r}, expected one of {', '.join(SCALES)}")
    token = _stated.set(scale)
    try:
        yield
    finally:
        _stated.reset(token)


def states_gamma() -> bool:
    """Returns whether gamma is stated."""
    return _stated.get() == "gamma"


def stated(h: float, own: Scale) -> Scale:
    """Returns the stated quantity, or ``own`` if none is; without a width there is only alpha."""
    return "alpha" if h != h else _stated.get() or own


def value_of(scale: Scale, h: float, alpha: float) -> float:
    """Returns a quantity of networks of width h at the scale alpha."""
    if scale == "alpha":
        return alpha
    product: float = h**0.5 * alpha
    return product if scale == "sqrt_h_alpha" else 1 / product


def scale_value(h: float, alpha: float, own: Scale = "sqrt_h_alpha") -> float:
    """Returns the number that labels state of networks of width h."""
    return value_of(stated(h, own), h, alpha)


def with_richness(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the column ``gamma`` to a table with widths and scales, if gamma is stated.

    Args:
        table: the columns ``sqrt_h_alpha``, or ``h`` and ``alpha``; a table without them is returned unchanged.

    >>> with stated_scale("gamma"):
    ...     with_richness(pd.DataFrame({"h": [100.0], "alpha": [0.05]}))
           h  alpha  gamma
    0  100.0   0.05    2.0
    """
    if not states_gamma() or not ({"h", "alpha"} <= set(table) or "sqrt_h_alpha" in table):
        return table
    if "sqrt_h_alpha" in table:
        scale, after = pd.to_numeric(table["sqrt_h_alpha"], errors="coerce"), "sqrt_h_alpha"
    else:
        h, alpha = (pd.to_numeric(table[name], errors="coerce") for name in ("h", "alpha"))
        scale, after = h**0.5 * alpha, "alpha"
    table = table.copy()
    table.insert(list(table.columns).index(after) + 1, "gamma", 1 / scale)
    return table
