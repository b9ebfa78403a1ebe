"""The shapes of the data while a network is built for them, for constructors that were given none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from lazy_lightning.errors import ConfigError


class DataShapes(NamedTuple):
    """What a data set requires of a network."""

    input_shape: tuple[int, ...]
    num_outputs: int


_SHAPES: ContextVar[DataShapes | None] = ContextVar("shapes of the data", default=None)


@contextmanager
def building_for(shapes: DataShapes) -> Iterator[None]:
    """Within it, the bundled networks take from ``shapes`` what they are not given: ``lambda: FC(width=30)`` works."""
    token = _SHAPES.set(shapes)
    try:
        yield
    finally:
        _SHAPES.reset(token)


def resolved_shapes(input_shape: Sequence[int] | int | None, num_outputs: int) -> DataShapes:
    """The shapes given to a bundled network; without an ``input_shape``, those of the data that it is built for.

    >>> resolved_shapes(64, 1)
    DataShapes(input_shape=(64,), num_outputs=1)

    Raises:
        ConfigError: sizes below one, or no ``input_shape`` and no data.
    """
    if input_shape is None:
        shapes = _SHAPES.get()
        if shapes is None:
            raise ConfigError(
                "input_shape is None, expected the shape of one sample: set it, for example to [1, 8, 8] or 64."
            )
        return shapes
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    if not shape or min(shape) < 1:
        raise ConfigError(f"input_shape is {shape}, expected sizes >= 1: give for example 64 or [1, 8, 8].")
    if num_outputs < 1:
        raise ConfigError(f"num_outputs is {num_outputs}, expected an integer >= 1: set a larger num_outputs.")
    return DataShapes(shape, num_outputs)
