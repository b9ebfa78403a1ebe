"""When the host looks: log-spaced in steps, and never late on the grid in t."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Schedule


def burst_ends(schedule, until):
    ends, tried = [], 0
    while tried < until:
        tried += schedule.steps_to_next(tried)
        ends.append(tried)
    return ends


def test_log_spaced_then_at_most_max_burst():
    ends = burst_ends(Schedule(max_burst=10, step_factor=1.5), 80)
    assert ends == [1, 2, 3, 4, 6, 9, 13, 19, 28, 38, 48, 58, 68, 78, 88]


@given(
    t=st.floats(1e-9, 1e9),
    step=st.floats(1e-9, 1e3),
    growth=st.floats(1.0, 1.14),
    factor=st.floats(1.15, 10.0),
    max_burst=st.integers(1, 2000),
    tried=st.integers(0, 10_000),
)
def test_no_member_passes_two_grid_points_unobserved(t, step, growth, factor, max_burst, tried):
    """At most one, at the end of a burst, unless that would make it shorter than min_burst.

    A last step may pass its grid point by as much as it had left to it times the growth, which is less than the
    distance to the next if growth < t_factor.
    """
    schedule = Schedule(max_burst=max_burst, min_burst=1, t_factor=factor)
    dt = step * t
    steps = schedule.burst(tried, [t], [dt], growth)
    before = schedule.grid_index(t)
    for _ in range(steps - 1):
        t, dt = t + dt, dt * growth
    if steps > 1:
        # grid_index counts the last 1e-12 before a grid point as past it.
        assert t < factor ** (before + 1) * (1 + 1e-9)
        assert schedule.grid_index((t + dt) * (1 - 1e-9)) <= before + 1


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-6, 1.0)), min_size=1, max_size=5))
def test_the_fastest_member_decides(members):
    schedule = Schedule(max_burst=500, min_burst=1)
    t, dt = zip(*members, strict=True)
    alone = [schedule.burst(10_000, [a], [b], 1.1) for a, b in members]
    assert schedule.burst(10_000, t, dt, 1.1) == min(alone)


@pytest.mark.parametrize(
    ("tried", "t", "dt", "expected"),
    [
        (0, [0.0], [1.0], 1),
        (1000, [0.0], [1.0], 8),  # still at t = 0 after many rejections: min_burst
        (1000, [1.0], [1e-9], 50),
        (1000, [1.0], [0.04], 13),  # (1.5 - 1)/0.04, rounded up
        (1000, [1.0, 1.0], [1e-9, 0.04], 13),
        (1000, [1.0], [10.0], 8),
        (1000, [], [], 50),
        (1000, [1.0], [0.0], 8),
    ],
)
def test_burst(tried, t, dt, expected):
    assert Schedule().burst(tried, t, dt, growth=1.0) == expected


@pytest.mark.parametrize("k", [-30, -1, 0, 1, 7, 40])
def test_grid_point_belongs_to_its_own_interval(k):
    schedule = Schedule(t_factor=1.5)
    assert schedule.grid_index(1.5**k) == k
    assert schedule.grid_index(math.nextafter(1.5**k, 0) * (1 - 1e-9)) == k - 1
    assert schedule.grid_index(0.0) is None


@pytest.mark.parametrize(
    "options", [{"min_burst": 0}, {"min_burst": 60}, {"step_factor": 1.0}, {"t_factor": 1.0}], ids=str
)
def test_refused(options):
    with pytest.raises(ConfigError):
        Schedule(**options)
