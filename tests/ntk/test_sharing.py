"""Members that share a kernel give what each would give with its own copy."""

from __future__ import annotations

import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.sharing import Sharing
from lazy_lightning.seeding import generator


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator("tests", 0))


owners = st.lists(st.integers(0, 4), min_size=1, max_size=9).map(
    lambda own: torch.tensor([sorted(set(own)).index(kernel) for kernel in own])
)


@given(owners, st.integers(1, 3))
def test_shared_products_are_those_of_copies(own, width):
    kernels = normal(int(own.max()) + 1, 5, 4)
    columns = normal(len(own), 4, width)
    assert_close(Sharing.of(own).product(kernels, columns), kernels[own] @ columns)


@given(owners, st.data())
def test_some_of_the_members_keep_their_kernels(own, data):
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(own) - 1), min_size=1, unique=True)))
    kernels, columns = normal(int(own.max()) + 1, 5, 4), normal(len(rows), 4, 2)
    sharing, used = Sharing.of(own).select(rows)
    assert_close(sharing.product(kernels[used], columns), kernels[own[rows]] @ columns)


def test_equal_weights_are_found_in_the_order_of_their_first_members():
    weights = torch.tensor([[2.0, 1.0], [0.0, 0.0], [2.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    starts = SharedStarts.of_weights(weights, {})
    first, own = starts.first, starts.own
    assert first.tolist() == [0, 1, 3]
    assert own.tolist() == [0, 1, 0, 2, 1]


def test_members_with_buffers_of_their_own_are_all_distinct():
    starts = SharedStarts.of_weights(torch.zeros(3, 2), {"b": torch.zeros(3, 1)})
    first, own = starts.first, starts.own
    assert first.tolist() == own.tolist() == [0, 1, 2]
