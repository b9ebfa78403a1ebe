"""The kernel in tiles of rows and columns, so that its memory is that of what is kept of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.memory import working_bytes
from lazy_lightning.ntk.tangents import Tangents, part_of

_ON_CPU, _ON_DEVICE = 512, 2048  # large enough for full-speed products, small enough to spare half of the pairs


class Tile(NamedTuple):
    """A block of a kernel."""

    rows: slice
    cols: slice
    by_layer: dict[str, Tensor]
    """(E, rows, cols, ...) each, by the contraction."""
    mirrored: bool
    """Whether this block also stands for its transpose, at (cols, rows)."""

    @property
    def pairs(self) -> int:
        """The number of pairs of samples, those of the transpose included."""
        count: int = (self.rows.stop - self.rows.start) * (self.cols.stop - self.cols.start)
        return 2 * count if self.mirrored else count

    @property
    def total(self) -> Tensor:
        """The sum of the tile over the layers."""
        blocks = iter(self.by_layer.values())
        total = next(blocks).clone()
        for block in blocks:
            total += block
        return total


def kernel_tiles(
    left: Tangents,
    right: Tangents | None = None,
    *,
    tile: int | None = None,
    memory: int | None = None,
    is_own: Callable[[int], bool] = lambda number: True,
) -> Iterator[Tile]:
    """Tiles that cover the kernel between the samples of ``left`` and ``right``, or of ``left`` with itself.

    In the symmetric case each pair of blocks comes once, from the upper triangle. Factors are made once and kept if
    they fit in ``memory`` bytes (a quarter of what is free by default); otherwise those of as many samples as fit,
    and again for each block of rows. A tile whose number ``is_own`` refuses has no content.

    Raises:
        ConfigError: if ``tile`` is not positive.
    """
    size = tile_size(tile, left.model.device)
    block = _samples_at_once(left, right, memory)
    numbers = itertools.count()
    with torch.no_grad():
        for i in range(0, len(left), block):
            rows = _span(i, block, len(left))
            held = left.factors_in_parts(rows, size)
            for cols in _spans(i, len(left), block) if right is None else _spans(0, len(right), block):
                same = right is None and cols == rows
                columns = held if same else (right or left).factors_in_parts(cols, size)
                for here, there in _blocks(rows, cols, size, same):
                    mirrored = right is None and here != there
                    if not is_own(next(numbers)):
                        yield Tile(here, there, {}, mirrored)
                        continue
                    mine = part_of(held, _within(here, rows))
                    theirs = part_of(columns, _within(there, cols))
                    products = {name: f.product(theirs[name], left.contraction) for name, f in mine.items()}
                    yield Tile(here, there, products, mirrored)


def tile_size(tile: int | None, device: torch.device) -> int:
    """Samples a side: the given number, or one that suits the device.

    Raises:
        ConfigError: if ``tile`` is not positive.
    """
    if tile is not None and tile < 1:
        raise ConfigError(f"tile must be >= 1 samples, got {tile}")
    return tile or (_ON_CPU if device.type == "cpu" else _ON_DEVICE)


def _blocks(rows: slice, cols: slice, size: int, upper: bool) -> Iterator[tuple[slice, slice]]:
    for here in _spans(rows.start, rows.stop, size):
        for there in _spans(here.start if upper else cols.start, cols.stop, size):
            yield here, there


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _samples_at_once(left: Tangents, right: Tangents | None, memory: int | None) -> int:
    each = left.bytes_per_sample()
    budget = working_bytes(left.model.device) if memory is None else memory
    everything = len(left) + (0 if right is None else len(right))
    if each * everything <= budget:
        return max(len(left), 1 if right is None else len(right), 1)
    return max(1, int(budget // (2 * each)))


def _span(start: int, size: int, stop: int) -> slice:
    return slice(start, min(start + size, stop))


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    return (_span(i, size, stop) for i in range(start, stop, size))
