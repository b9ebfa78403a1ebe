"""The specification of a sweep, parsed and validated from its YAML file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import yaml

from lazy_lightning.errors import ConfigError, suggestion
from lazy_lightning.experiments.axes import axis_values, positive_values, seed_values
from lazy_lightning.experiments.executor_spec import executor_spec
from lazy_lightning.runs.configuration import MOST_MEMBERS

ScaleAxis = Literal["alpha", "sqrt_h_alpha"]
KernelOf = Literal["init", "end"]

_SEEDS = "seeds"
_MOST_COMBINATIONS = 10_000
"""Limit on the combinations of keys other than the scale and the seeds, each of which is at least one run."""
_KEYS = ("name", "grid", "kernels", "bisect", "keep_checkpoints", "executor")
_DIRECT = {
    "model.alpha": "alpha",
    "model.seeds": "seeds",
    "model.init_args.alpha": "alpha",
    "model.init_args.seeds": "seeds",
}


@dataclass(frozen=True)
class Bisection:
    """Search for the scale at which a quantity crosses a level, up to a tolerance.

    Args:
        axis: ``alpha`` or ``sqrt_h_alpha``.
        start: the smallest scale.
        end: the largest scale.
        column: the column of a member's last values whose geometric mean over the seeds crosses the level.
        level: the value to cross.
        tolerance: the width of the final interval in decades.
        points: number of scales in the first round, and inside the interval in each further round. They are members of
            one batch, so several cost little more than one.
    """

    axis: ScaleAxis
    start: float
    end: float
    column: str = "kernel_drift/total"
    level: float = 0.5
    tolerance: float = 0.05
    points: int = 4

    def __post_init__(self) -> None:
        if self.axis not in get_args(ScaleAxis):
            raise ConfigError(f"bisect has axis {self.axis!r}, expected {' or '.join(get_args(ScaleAxis))}")
        if not 0 < self.start < self.end:
            raise ConfigError(f"bisect goes from {self.start:g} to {self.end:g}: it must increase, and start above 0")
        if not (self.level > 0 and self.tolerance > 0):
            raise ConfigError(f"bisect needs level > 0 and tolerance > 0, got {self.level:g} and {self.tolerance:g}")
        if self.points < 2:
            raise ConfigError(f"bisect needs points >= 2, got {self.points}")


@dataclass(frozen=True)
class SweepSpec:
    """The specification of a sweep: a grid of configurations, scales and seeds.

    Args:
        name: the name of the sweep, and of its folder unless another is given.
        grid: values by configuration key, as on the command line (``model.network.width``).
        scale: the axis of ``scales``; None for the configuration's alpha.
        scales: values of alpha, or of sqrt(h) alpha.
        seeds: initial seeds; None for those of the configuration.
        kernels: whether to also train the flow on the frozen kernel of each network at initialisation, at the end of
            training, or both.
        bisect: search for a crossing instead of ``scales``.
        keep_checkpoints: whether to keep the checkpoints of runs that have ended.
        executor: the name of the executor, or its keys; see :func:`executor_spec`. None for ``local``.
    """

    name: str
    grid: dict[str, list[Any]] = field(default_factory=dict)
    scale: ScaleAxis | None = None
    scales: tuple[float, ...] = ()
    seeds: tuple[int, ...] | None = None
    kernels: tuple[KernelOf, ...] = ()
    bisect: Bisection | None = None
    keep_checkpoints: bool = False
    executor: Any = None

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yields every combination of the grid's values, by key."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def parse_sweep_spec(content: Mapping[str, Any], name: str) -> SweepSpec:
    """Parses and validates the content of a sweep's file.

    Args:
        content: the mapping in the YAML file.
        name: the default name of the sweep.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
    """
    _known(content, _KEYS, "a sweep")
    grid = _mapping(content.get("grid"), "grid")
    grid = _with_short_names(grid)
    given = [axis for axis in get_args(ScaleAxis) if axis in grid]
    bisect = _bisection(content.get("bisect"))
    if len(given) + (bisect is not None) > 1:
        raise ConfigError("a sweep has one scale: give alpha, sqrt_h_alpha or bisect")
    scale: ScaleAxis | None = given[0] if given else None
    keep = content.get("keep_checkpoints", False)
    if not isinstance(keep, bool):
        raise ConfigError(f"keep_checkpoints is {keep!r}, expected true or false")
    executor_spec(content.get("executor"))  # raises for invalid keys
    spec = SweepSpec(
        name=_name(content.get("name", name)),
        grid={key: axis_values(key, value) for key, value in grid.items() if key not in (*given, _SEEDS)},
        scale=scale,
        scales=() if scale is None else tuple(positive_values(scale, grid[scale])),
        seeds=tuple(seed_values(grid[_SEEDS])) if _SEEDS in grid else None,
        kernels=_kernels(content.get("kernels")),
        bisect=bisect,
        keep_checkpoints=keep,
        executor=content.get("executor"),
    )
    _require_count(spec)
    return spec


def _require_count(spec: SweepSpec) -> None:
    """Checks the size of the grid, because each combination is parsed, which would take hours for a very large one."""
    combinations = math.prod(len(values) for values in spec.grid.values())
    members = combinations * max(1, len(spec.scales)) * max(1, len(spec.seeds or ()))
    if combinations > _MOST_COMBINATIONS or members > MOST_MEMBERS:
        raise ConfigError(
            f"the grid has {combinations} configurations and {members} members, expected {_MOST_COMBINATIONS} and "
            f"{MOST_MEMBERS} at most: take fewer values, or several sweeps"
        )


def as_argument(value: Any) -> str:
    """Formats a value of the grid as an argument of the command line."""
    return value if isinstance(value, str) else as_yaml(value)


def as_yaml(value: Any) -> str:
    """Formats a value as one line of YAML, which unlike JSON can represent infinity.

    >>> as_yaml({"t_factor": float("inf"), "layers": None})
    '{t_factor: .inf, layers: null}'
    """
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _bisection(content: Any) -> Bisection | None:
    if content is None:
        return None
    given = dict(_mapping(content, "bisect"))
    _known(given, ("axis", "from", "to", "column", "level", "tolerance", "points"), "bisect")
    for key in ("from", "to"):
        if key not in given:
            raise ConfigError(f"bisect needs {key}: the scale to search {key}")
    start, end = (positive_values(f"bisect.{key}", given.pop(key))[0] for key in ("from", "to"))
    for key, kinds, expected in (
        ("column", str, "a column's name"),
        ("level", (int, float), "a number"),
        ("tolerance", (int, float), "a number"),
        ("points", int, "an integer"),
    ):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], kinds)):
            raise ConfigError(f"bisect.{key} is {given[key]!r}, expected {expected}")
    return Bisection(**{"axis": "sqrt_h_alpha", **given}, start=start, end=end)


def _with_short_names(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces ``model.alpha`` and ``model.seeds`` in a grid by ``alpha`` and ``seeds``."""
    short: dict[str, str] = {}
    for key in grid:
        other = short.setdefault(_DIRECT.get(key, key), key)
        if other != key:
            raise ConfigError(f"the grid has both {other} and {key}, which are the same axis: leave one of them out")
    return {name: grid[key] for name, key in short.items()}


def _kernels(content: Any) -> tuple[KernelOf, ...]:
    values: list[Any] = [] if content is None else content if isinstance(content, list) else [content]
    wrong = [value for value in values if value not in get_args(KernelOf)]
    if wrong:
        raise ConfigError(f"kernels has {wrong[0]!r}, expected some of {', '.join(get_args(KernelOf))}")
    return tuple(dict.fromkeys(values))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or "/" in value or value.startswith("."):
        raise ConfigError(f"the sweep's name is {value!r}, expected a word that can name a folder")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}, expected keys and values such as 'model.network.width: [30, 100]'")
    return value


def _known(content: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in content:
        if key not in known:
            hint = suggestion(str(key), known) or f", expected some of {', '.join(known)}"
            raise ConfigError(f"{what} has no key {key}{hint}")
