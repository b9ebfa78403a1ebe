"""Tiles of a kernel that several processes compute in turn, each of which gets all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from lazy_lightning.ntk.tiles import Tile

_TILES_A_SIDE = 2
"""For each process, so that the triangle of a small kernel has a tile for each."""


class TileRanks(Protocol):
    """The processes among which the tiles of a kernel are distributed; tile i belongs to process i modulo their count.

    :class:`~lazy_lightning.modules.sample_ranks.SampleRanks` is one.
    """

    rank: int
    count: int

    def of(self, rank: int, x: Tensor) -> Tensor:
        """Overwrites ``x``, on the device, by what another process has; called by all of them."""


def shared_tile_size(size: int, samples: int, count: int) -> int:
    """Samples a side of a tile, so small that each process has some.

    >>> shared_tile_size(512, samples=100, count=2)
    25
    """
    return min(size, -(-samples // (_TILES_A_SIDE * count)))


def exchanged_totals(
    tiles: Iterator[Tile], ranks: TileRanks, members: int, tail: Sequence[int], like: Tensor
) -> Iterator[tuple[Tile, Tensor]]:
    """All tiles in order, each with its sum over the layers (E, rows, cols, ...) from the process that computed it.

    Args:
        tiles: of which those of other processes have no content.
        ranks: all of which must take all of the tiles.
        members: E.
        tail: the last axes.
        like: a tensor of their dtype and device.
    """
    turn: list[Tile] = []
    for tile in tiles:
        turn.append(tile)
        if len(turn) == ranks.count:
            yield from _exchanged(turn, ranks, members, tail, like)
            turn = []
    yield from _exchanged(turn, ranks, members, tail, like)


def _exchanged(
    turn: Sequence[Tile], ranks: TileRanks, members: int, tail: Sequence[int], like: Tensor
) -> Iterator[tuple[Tile, Tensor]]:
    for owner, tile in enumerate(turn):
        shape = (members, tile.rows.stop - tile.rows.start, tile.cols.stop - tile.cols.start, *tail)
        total = tile.total.contiguous() if owner == ranks.rank else like.new_empty(shape)
        yield tile, ranks.of(owner, total)
