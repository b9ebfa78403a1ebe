"""Tiles of a kernel that processes compute in turn, here threads: each gets the kernel of one, to memory or to disk."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk import empirical_ntk, kernel_file
from lazy_lightning.ntk.tiles import Tile

COUNT = 3
torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
X1, X2 = torch.randn(13, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)


class ThreadRank:
    """One of the threads, which meet at each exchange."""

    count = COUNT

    def __init__(self, rank: int, held: dict[str, Tensor], barrier: threading.Barrier) -> None:
        self.rank, self._held, self._barrier = rank, held, barrier

    def of(self, rank: int, x: Tensor) -> Tensor:
        if rank == self.rank:
            self._held["x"] = x
        self._barrier.wait(30)
        found = x.copy_(self._held["x"])
        self._barrier.wait(30)
        return found


def on_ranks(call):
    """What ``call(rank, network)`` gives on each of the ranks."""
    held: dict[str, Tensor] = {}
    barrier = threading.Barrier(COUNT)
    with ThreadPoolExecutor(COUNT) as pool:  # networks of their own: a functional call changes a module's parameters
        calls = [pool.submit(call, ThreadRank(rank, held, barrier), copy.deepcopy(NET)) for rank in range(COUNT)]
        return [each.result() for each in calls]


@pytest.mark.parametrize("x2", [None, X2], ids=["one set", "two sets"])
@pytest.mark.parametrize("output", ["full", "diagonal", "trace", "mean"])
@pytest.mark.parametrize("method", ["structured", "jacobian"])
def test_each_rank_gets_the_kernel_of_one_process(method, output, x2):
    expected = empirical_ntk(NET, None, X1, x2, output=output, method=method)
    found = on_ranks(lambda rank, net: empirical_ntk(net, None, X1, x2, output=output, method=method, ranks=rank))
    for kernel in found:
        torch.testing.assert_close(kernel, expected, rtol=1e-12, atol=1e-13)
        assert torch.equal(kernel, found[0])


def test_kernel_of_several_ranks_is_gathered_to_an_array_on_disk_of_the_first(tmp_path):
    expected = empirical_ntk(NET, None, X1, output="trace")

    def call(rank, net):
        if rank.rank > 0:
            nowhere = torch.empty(13, 13, dtype=torch.float64, device="meta")
            return empirical_ntk(net, None, X1, output="trace", out=nowhere, ranks=rank).device.type
        with kernel_file(tmp_path / "kernel.npy", (13, 13)) as array:
            return empirical_ntk(net, None, X1, output="trace", out=array, ranks=rank).device.type

    assert on_ranks(call) == ["cpu", "meta", "meta"]
    written = np.load(tmp_path / "kernel.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_allclose(written, expected, rtol=1e-12)


def test_each_tile_is_computed_once(monkeypatch):
    computed, total = [], Tile.total.fget
    monkeypatch.setattr(Tile, "total", property(lambda tile: (computed.append((tile.rows, tile.cols)), total(tile))[1]))
    on_ranks(lambda rank, net: empirical_ntk(net, None, X1, output="trace", ranks=rank, tile=4))
    assert len(computed) == len({(a.start, b.start) for a, b in computed}) == 10  # the triangle of four by four


def test_columns_are_not_shared():
    with pytest.raises(ConfigError, match="method='jvp' has no tiles that processes could share"):
        empirical_ntk(NET, None, X1, method="jvp", ranks=ThreadRank(0, {}, threading.Barrier(1)))
