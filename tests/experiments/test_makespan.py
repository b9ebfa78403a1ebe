"""The simulated course of a sweep against closed forms and the bound of its rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.experiments.makespan import Makespan, makespan


def test_equal_batches() -> None:
    """7 batches of 2 s on 3 workers: three rounds."""
    assert makespan([2.0] * 7, 3) == Makespan(6.0, pytest.approx(14 / 18))


def test_one_long_batch_decides() -> None:
    assert makespan([1.0, 1.0, 10.0, 1.0], 4).seconds == 10.0


def test_the_order_follows_what_is_expected_and_the_time_what_is_taken() -> None:
    """The batch that turns out long was expected to be short, so it comes last."""
    assert makespan([2.0, 2.0, 1.0], 2, taken=[2.0, 2.0, 9.0]).seconds == 11.0
    assert makespan([2.0, 2.0, 9.0], 2, taken=[2.0, 2.0, 9.0]).seconds == 9.0


def test_no_batches() -> None:
    assert makespan([], 8) == Makespan(0.0, 1.0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_within_the_bound_of_the_best_order(times: list[int], workers: int) -> None:
    found = makespan([float(t) for t in times], workers)
    best = min(
        max(sum(t for t, w in zip(times, chosen, strict=True) if w == worker) for worker in range(workers))
        for chosen in itertools.product(range(workers), repeat=len(times))
    )
    assert best <= found.seconds <= (4 / 3 - 1 / (3 * workers)) * best + 1e-9
    assert found.utilisation <= 1 + 1e-12
