"""A search for a crossing, replayed on what has been measured so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.experiments.bisect import Search, search
from lazy_lightning.experiments.sweep_spec import Bisection

LEVEL = 0.5


def bisection(points: int = 4, tolerance: float = 0.05, start: float = 1e-2, end: float = 1e3) -> Bisection:
    return Bisection("alpha", start, end, level=LEVEL, tolerance=tolerance, points=points)


def drift(star: float) -> Callable[[float], float]:
    """Falls with the scale, and is the level at ``star``."""
    return lambda scale: LEVEL * (star / scale) ** 0.7


def measured_by(of: Bisection, value: Callable[[float], float], rounds: int = 60) -> tuple[Search, dict[float, float]]:
    """Measures what is asked for until nothing more is, each scale once."""
    known: dict[float, float] = {}
    for _ in range(rounds):
        found = search(of, {scale: [v] for scale, v in known.items()})
        new = [scale for scale in found.scales if scale not in known]
        assert found.complete == (not new)
        assert len(set(found.scales)) == len(found.scales)  # nothing is asked for twice
        assert found.scales == sorted(found.scales)
        if found.complete:
            assert set(found.scales) == set(known)
            return found, known
        known |= {scale: value(scale) for scale in new}
    raise AssertionError("the search does not end")


@given(st.floats(-1.9, 2.9), st.integers(2, 7), st.sampled_from([0.3, 0.05, 0.001]))
def test_finds_the_crossing_to_the_tolerance(log_star: float, points: int, tolerance: float) -> None:
    star = 10**log_star
    found, known = measured_by(bisection(points, tolerance), drift(star))
    assert found.interval is not None
    low, high = found.interval
    assert math.log10(high / low) <= tolerance
    assert low * (1 - 1e-9) <= star <= high * (1 + 1e-9)
    assert {low, high} <= set(known)
    rounds = math.ceil(math.log(5 / (points - 1) / tolerance, points + 1)) + 1
    assert len(known) <= points * (rounds + 1)  # each round makes the interval points + 1 times shorter


@given(st.floats(-1.9, 2.9), st.integers(2, 5), st.data())
def test_goes_on_from_any_part_of_what_was_measured(log_star: float, points: int, data: st.DataObject) -> None:
    """As after a stop: with some of the values lost, the lost ones are asked for, and no others."""
    of, value = bisection(points), drift(10**log_star)
    whole, known = measured_by(of, value)
    kept: dict[float, float] = {s: v for s, v in known.items() if data.draw(st.booleans())}
    while True:
        found = search(of, {scale: [v] for scale, v in kept.items()})
        if found.complete:
            break
        assert set(found.scales) <= set(known)
        kept |= {scale: value(scale) for scale in found.scales}
    assert found == whole


def test_foreign_scales_change_nothing() -> None:
    """Of an earlier search with other points, or of a grid in the same folder."""
    _, known = measured_by(bisection(), drift(3.0))
    others = {scale * 1.01: [0.9] for scale in known}
    with_others = search(bisection(), {s: [v] for s, v in known.items()} | others)
    assert with_others == search(bisection(), {s: [v] for s, v in known.items()})


def test_the_mean_over_seeds_is_geometric() -> None:
    of = bisection(points=2, tolerance=10)
    between = [0.1, LEVEL**2 / 0.1 * 1.01]  # whose geometric mean is just over the level, their arithmetic one far
    assert search(of, {1e-2: between, 1e3: [0.49]}).interval == (1e-2, 1e3)
    assert search(of, {1e-2: [v / 1.02 for v in between], 1e3: [0.49]}).interval is None
    assert search(of, {1e-2: [0.6, math.nan], 1e3: [0.1]}).interval == (1e-2, 1e3)  # one seed has failed


@pytest.mark.parametrize("value", [0.1, 0.9])
def test_no_crossing(value: float) -> None:
    found, known = measured_by(bisection(), lambda scale: value)
    assert (found.interval, len(known)) == (None, 4)


def test_of_several_crossings_that_on_the_lazy_side() -> None:
    found, _ = measured_by(bisection(points=6), lambda s: 0.9 if 0.1 < s < 10 else 0.1)
    assert found.interval is not None
    assert found.interval[0] <= 10 <= found.interval[1]


@given(st.floats(-1.5, 2.5), st.sets(st.integers(0, 40)), st.integers(2, 5))
def test_scales_that_fail_are_gone_around(log_star: float, failing: set[int], points: int) -> None:
    """The search ends, and an interval that it gives is one of scales that have not failed."""
    value, bad = drift(10**log_star), {bucket / 8 - 2 for bucket in failing}

    def fails(scale: float) -> bool:
        return any(b <= math.log10(scale) < b + 1 / 8 for b in bad)

    found, known = measured_by(bisection(points), lambda s: math.nan if fails(s) else value(s))
    if found.interval is not None:
        low, high = found.interval
        assert not fails(low)
        assert not fails(high)
        assert low <= 10**log_star * (1 + 1e-9)
        assert high >= 10**log_star * (1 - 1e-9)
        good = [s for s in known if not fails(s)]
        assert not [s for s in good if low < s < high]


def test_all_fail() -> None:
    found, known = measured_by(bisection(), lambda scale: math.nan)
    assert (found.complete, found.interval, len(known)) == (True, None, 4)
    empty: Mapping[float, list[float]] = {scale: [] for scale in known}
    assert search(bisection(), empty) == found


def test_before_anything_is_known() -> None:
    assert search(bisection(points=3, start=0.1, end=1000), {}) == Search([0.1, 10.0, 1000.0], None, False)
