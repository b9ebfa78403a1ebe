"""What a sweep's file may say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.sweep_spec import Bisection, as_argument, as_yaml, parse_sweep_spec


def test_all_of_it() -> None:
    content = """
      name: mine
      grid:
        model.network.width: [30, 100]
        model.dt: 1.0e-3
        sqrt_h_alpha: {from: 0.1, to: 10, per_decade: 1}
        seeds: 2
      kernels: [init, end]
      keep_checkpoints: true
    """
    found = parse_sweep_spec(yaml.safe_load(content), "file")
    assert (found.name, found.scale, found.scales, found.seeds) == ("mine", "sqrt_h_alpha", (0.1, 1.0, 10.0), (0, 1))
    assert found.kernels == ("init", "end")
    assert found.keep_checkpoints
    combinations = [{"model.network.width": h, "model.dt": 1e-3} for h in (30, 100)]
    assert list(found.combinations()) == combinations


def test_nothing_is_the_configuration_itself() -> None:
    found = parse_sweep_spec({}, "file")
    assert list(found.combinations()) == [{}]
    assert (found.name, found.scale, found.seeds, found.kernels, found.bisect) == ("file", None, None, (), None)


@pytest.mark.parametrize("long", ["model.alpha", "model.init_args.alpha"])
def test_alpha_by_its_long_name(long: str) -> None:
    assert parse_sweep_spec({"grid": {long: [0.1, 1]}}, "file") == parse_sweep_spec(
        {"grid": {"alpha": [0.1, 1]}}, "file"
    )
    assert parse_sweep_spec({"grid": {long.replace("alpha", "seeds"): 2}}, "file").seeds == (0, 1)


def test_one_kernel_may_be_a_word() -> None:
    assert parse_sweep_spec({"kernels": "end"}, "file").kernels == ("end",)
    assert parse_sweep_spec({"kernels": ["end", "end"]}, "file").kernels == ("end",)


def test_bisection() -> None:
    found = parse_sweep_spec({"bisect": {"from": 1, "to": 100, "level": 0.3, "points": 5}}, "file").bisect
    assert found == Bisection("sqrt_h_alpha", 1.0, 100.0, level=0.3, points=5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"gird": {}}, "a sweep has no key gird: did you mean grid"),
        ({3: {}}, "a sweep has no key 3, expected some of name, grid"),
        ({"grid": [1]}, r"grid is \[1\], expected keys and values"),
        ({"grid": "alpha"}, "grid is 'alpha'"),
        ({"grid": {"alpha": 1.0, "sqrt_h_alpha": 1.0}}, "one scale: give alpha, sqrt_h_alpha or bisect"),
        ({"grid": {"alpha": 1.0}, "bisect": {"from": 1, "to": 2}}, "one scale"),
        ({"grid": {"alpha": 1.0, "model.alpha": 2.0}}, "both alpha and model.alpha, which are the same axis"),
        ({"grid": {"model.seeds": 1, "model.init_args.seeds": 2}}, "both model.seeds and model.init_args.seeds"),
        ({"kernels": ["start"]}, "kernels has 'start', expected some of init, end"),
        ({"kernels": 3}, "kernels has 3"),
        ({"kernels": True}, "kernels has True"),
        ({"kernels": {"init": True}}, "kernels has {'init': True}"),
        ({"keep_checkpoints": "maybe"}, "keep_checkpoints is 'maybe'"),
        ({"name": "a/b"}, "name is 'a/b', expected a word that can name a folder"),
        ({"name": ".."}, "name is '..'"),
        ({"name": 3}, "name is 3"),
        ({"bisect": 3}, "bisect is 3"),
        ({"bisect": {"to": 3}}, "bisect needs from"),
        ({"bisect": {"from": 3}}, "bisect needs to"),
        ({"bisect": {"from": 3, "to": 1}}, "bisect goes from 3 to 1"),
        ({"bisect": {"from": "1e-3", "to": 1}}, r"bisect.from has the value '1e-3'.*write 1.0e-3"),
        ({"bisect": {"from": 1, "to": 3, "colum": "x"}}, "bisect has no key colum: did you mean column"),
        ({"bisect": {"from": 1, "to": 3, "column": 4}}, "bisect.column is 4, expected a column's name"),
        ({"bisect": {"from": 1, "to": 3, "level": "half"}}, "bisect.level is 'half', expected a number"),
        ({"bisect": {"from": 1, "to": 3, "level": 0}}, "level > 0"),
        ({"bisect": {"from": 1, "to": 3, "tolerance": -1}}, "tolerance > 0"),
        ({"bisect": {"from": 1, "to": 3, "points": 2.5}}, "bisect.points is 2.5, expected an integer"),
        ({"bisect": {"from": 1, "to": 3, "points": 1}}, "points >= 2"),
        ({"bisect": {"from": 1, "to": 3, "axis": "width"}}, "axis 'width', expected alpha or sqrt_h_alpha"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_sweep_spec(content, "file")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc:#{[ é'\"-.1", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.c", min_size=1), inner, max_size=3),
)


@given(plain)
def test_values_come_back_from_one_line_of_yaml(value: Any) -> None:
    line = as_yaml(value)
    assert "\n" not in line
    assert yaml.safe_load(line) == value


def test_words_are_given_as_they_are() -> None:
    """So that 1e-3, a word to YAML, is the number that it was meant to be."""
    assert as_argument("1e-3") == "1e-3"
    assert as_argument("softplus(5)") == "softplus(5)"
    assert (as_argument(None), as_argument(True), as_argument(1e-5)) == ("null", "true", "1.0e-05")
