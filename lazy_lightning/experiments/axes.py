"""Parsing of the values of one axis of a sweep: a single value, a list, or a range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.configuration import MOST_MEMBERS, significant

_LARGEST_SEED = 2**63
_RANGE = ("from", "to", "points", "per_decade", "spacing")


def axis_values(name: str, spec: Any) -> list[Any]:
    """Returns the values of an axis.

    * A list is used unchanged, and any other value is a single value.
    * ``{from: 1.0e-3, to: 1.0e+4, per_decade: 2}`` is a geometric range with both ends included.
    * ``{from: 1, to: 5, points: 9, spacing: linear}`` is a range in equal steps.

    >>> axis_values("sqrt_h_alpha", {"from": 0.01, "to": 1, "per_decade": 1})
    [0.01, 0.1, 1]

    Raises:
        ConfigError: the list is empty or has a value twice, or the range is invalid.
    """
    if isinstance(spec, Mapping) and set(spec) & set(_RANGE):
        return [int(value) if value.is_integer() else value for value in _range(name, spec)]  # such as widths
    values = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not values:
        raise ConfigError(f"the axis {name} is an empty list: give at least one value, or leave it out")
    _require_count(name, len(values))
    if _has_twice(values):
        raise ConfigError(f"the axis {name} has a value twice: {values}")
    return values


def _require_count(name: str, count: int) -> None:
    if count > MOST_MEMBERS:
        raise ConfigError(
            f"the axis {name} has {count} values, expected {MOST_MEMBERS} at most: choose a smaller range"
        )


def _has_twice(values: Sequence[Any]) -> bool:
    try:
        return len(set(values)) < len(values)
    except TypeError:  # lists and mappings are not hashable
        return any(value in values[:i] for i, value in enumerate(values))


def positive_values(name: str, spec: Any) -> list[float]:
    """Returns the values of a scale, which must be numbers > 0.

    Raises:
        ConfigError: a value is not a number > 0.
    """
    values = axis_values(name, spec)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
            hint = "; YAML parses 1e-3 as a string, write 1.0e-3" if isinstance(value, str) else ""
            raise ConfigError(f"the axis {name} has the value {value!r}, expected a number > 0{hint}")
    return [significant(float(value)) for value in values]


def seed_values(spec: Any) -> list[int]:
    """Returns the seeds of an axis; an integer k stands for the seeds 0, ..., k - 1.

    >>> seed_values(3)
    [0, 1, 2]

    Raises:
        ConfigError: there is no seed, or one is not an integer from 0 to 2^63 - 1.
    """
    if isinstance(spec, int) and not isinstance(spec, bool):
        _require_count("seeds", spec)
        values: list[Any] = list(range(spec))
    else:
        values = axis_values("seeds", spec)
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < _LARGEST_SEED for v in values):
        hint = "; YAML parses 1e3 as a string, write 1000" if isinstance(spec, str) else ""
        raise ConfigError(
            f"seeds is {spec!r}, expected a number of seeds >= 1 or a list of integers from 0 to 2^63 - 1{hint}"
        )
    return values


def _range(name: str, spec: Mapping[str, Any]) -> list[float]:
    unknown = sorted(set(spec) - set(_RANGE))
    if unknown:
        raise ConfigError(f"the range of {name} has the key {unknown[0]}, expected some of {', '.join(_RANGE)}")
    spacing = spec.get("spacing", "log")
    low, high = (_end(name, spec, end) for end in ("from", "to"))
    if spacing not in ("log", "linear"):
        raise ConfigError(f"the range of {name} has the spacing {spacing!r}, expected log or linear")
    if not low < high or (spacing == "log" and low <= 0):
        raise ConfigError(
            f"the range of {name} goes from {low:g} to {high:g}: it must increase, and start above 0 with log spacing"
        )
    points = _points(name, spec, low, high, spacing)
    _require_count(name, points)
    shares = [i / (points - 1) for i in range(points)]
    if spacing == "linear":
        return [significant(low + share * (high - low)) for share in shares]
    return [significant(10 ** (math.log10(low) + share * math.log10(high / low))) for share in shares]


def _points(name: str, spec: Mapping[str, Any], low: float, high: float, spacing: str) -> int:
    points, density = spec.get("points"), spec.get("per_decade")
    if (points is None) == (density is None):
        raise ConfigError(f"the range of {name} needs either points (the number of values) or per_decade")
    if density is not None:
        is_density = isinstance(density, (int, float)) and not isinstance(density, bool) and 0 < density <= MOST_MEMBERS
        if spacing != "log" or not is_density:
            raise ConfigError(
                f"the range of {name} has per_decade: {density!r}, expected a number > 0, and log spacing"
            )
        intervals = math.log10(high / low) * density
        if abs(intervals - round(intervals)) > 1e-6 or round(intervals) < 1:
            raise ConfigError(
                f"the range of {name} from {low:g} to {high:g} is not a whole number of steps at {density:g} per "
                "decade: move an end, or give points"
            )
        count: int = round(intervals) + 1
        return count
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ConfigError(f"the range of {name} has points: {points!r}, expected an integer >= 2")
    return points


def _end(name: str, spec: Mapping[str, Any], end: str) -> float:
    value = spec.get(end)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        hint = "; YAML parses 1e-3 as a string, write 1.0e-3" if isinstance(value, str) else ""
        raise ConfigError(f"the range of {name} has {end}: {value!r}, expected a number{hint}")
    return float(value)
