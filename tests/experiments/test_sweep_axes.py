"""The values of an axis, as a person writes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.axes import axis_values, positive_values, seed_values
from lazy_lightning.runs.configuration import significant

ROUNDED = 1e-11  # values are rounded to 12 significant digits
scales = st.floats(1e-6, 1e6)


@given(scales, st.integers(1, 6), st.integers(1, 5))
def test_a_log_range_has_equal_ratios_and_both_ends(low: float, decades: int, density: int) -> None:
    high = low * 10**decades
    values = axis_values("alpha", {"from": low, "to": high, "per_decade": density})
    assert len(values) == decades * density + 1
    np.testing.assert_allclose([values[0], values[-1]], [low, high], rtol=ROUNDED)
    np.testing.assert_allclose(np.diff(np.log10(values)), 1 / density, atol=ROUNDED)


@given(scales, st.floats(1.01, 1e6), st.integers(2, 30), st.sampled_from(["log", "linear"]))
def test_points_are_how_many_there_are(low: float, factor: float, points: int, spacing: str) -> None:
    values = axis_values("model.dt", {"from": low, "to": low * factor, "points": points, "spacing": spacing})
    reference = np.geomspace if spacing == "log" else np.linspace
    np.testing.assert_allclose(values, reference(low, low * factor, points), rtol=ROUNDED)


@given(st.integers(-9, 9), st.integers(1, 6))
def test_powers_of_ten_are_exact(exponent: int, decades: int) -> None:
    spec = {"from": 10.0**exponent, "to": 10.0 ** (exponent + decades), "per_decade": 1}
    assert axis_values("alpha", spec) == [float(f"1e{exponent + i}") for i in range(decades + 1)]


def test_whole_numbers_of_a_range_are_integers() -> None:
    """Widths and numbers of samples are integers, and a key that takes a float takes these too."""
    values = axis_values("model.network.width", {"from": 10, "to": 1000, "per_decade": 2})
    assert [type(value) for value in values] == [int, float, int, float, int]
    assert values[::2] == [10, 100, 1000]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_significant_digits(value: float) -> None:
    assert significant(value) == pytest.approx(value, rel=1e-11, abs=0)
    assert significant(significant(value)) == significant(value)
    assert math.isnan(significant(math.nan))


def test_one_value_or_a_list() -> None:
    assert axis_values("k", "relu") == ["relu"]
    assert axis_values("k", None) == [None]
    assert axis_values("k", {"class_path": "x"}) == [{"class_path": "x"}]
    assert axis_values("k", [1, "a", None, {"x": [1]}]) == [1, "a", None, {"x": [1]}]
    assert positive_values("alpha", [3, 0.1 + 0.2]) == [3.0, 0.3]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ([], "empty list"),
        ([1, 2, 1.0], "a value twice"),
        ({"from": 1, "to": 50, "per_decade": 1}, "from 1 to 50 is not a whole number of steps at 1 per decade"),
        ({"from": 1, "to": 10}, "either points .* or per_decade"),
        ({"from": 1, "to": 10, "points": 3, "per_decade": 2}, "either points .* or per_decade"),
        ({"from": 10, "to": 1, "points": 3}, "from 10 to 1: it must increase"),
        ({"from": 0, "to": 1, "points": 3}, "from 0 to 1: it must increase, and start above 0 with log spacing"),
        ({"from": 1, "points": 3}, "has to: None, expected a number"),
        ({"from": "1e-3", "to": 1, "points": 3}, "from: '1e-3', expected a number; YAML parses 1e-3 as a string"),
        ({"from": True, "to": 3, "points": 3}, "from: True"),
        ({"from": 1, "to": math.inf, "points": 3}, "to: inf"),
        ({"from": 1, "to": 10, "points": 1}, "points: 1, expected an integer >= 2"),
        ({"from": 1, "to": 10, "points": 2.5}, "points: 2.5"),
        ({"from": 1, "to": 10, "per_decade": 0}, "per_decade: 0, expected a number > 0"),
        ({"from": 1, "to": 10, "per_decade": 2, "spacing": "linear"}, "per_decade: 2, .* and log spacing"),
        ({"from": 1, "to": 10, "points": 3, "spacing": "square"}, "spacing 'square', expected log or linear"),
        ({"from": 1, "to": 10, "points": 3, "step": 1}, "the key step, expected some of from, to"),
    ],
    ids=str,
)
def test_what_is_no_axis_is_told_with_its_name_and_value(spec: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        axis_values("model.dt", spec)
    assert "model.dt" in str(told.value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, None, "big", [1.0]])
def test_a_scale_is_a_positive_number(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"the axis alpha has the value .*, expected a number > 0"):
        positive_values("alpha", [2.0, value])


def test_a_word_that_was_meant_as_a_number() -> None:
    with pytest.raises(ConfigError, match=r"'1e-3', .* YAML parses 1e-3 as a string, write 1.0e-3"):
        positive_values("sqrt_h_alpha", ["1e-3"])


def test_seeds() -> None:
    assert seed_values(3) == [0, 1, 2]
    assert seed_values([5, 0]) == [5, 0]


@pytest.mark.parametrize("spec", [0, -2, [], [0, -1], [0.5], True, None, "three", [True]], ids=str)
def test_what_are_no_seeds(spec: Any) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        seed_values(spec)
