"""What a sweep is declared to be: the content of its YAML file, checked."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import yaml

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.axes import axis_values, positive_values, seed_values
from lazy_lightning.runs.configuration import MOST_MEMBERS

ScaleAxis = Literal["alpha", "sqrt_h_alpha"]
KernelOf = Literal["init", "end"]

_SEEDS = "seeds"
_MOST_COMBINATIONS = 10_000
"""Of keys other than the scale and seeds; each is a run at least."""
_KEYS = ("name", "grid", "kernels", "bisect", "keep_checkpoints")
_DIRECT = {
    "model.alpha": "alpha",
    "model.seeds": "seeds",
    "model.init_args.alpha": "alpha",
    "model.init_args.seeds": "seeds",
}


@dataclass(frozen=True)
class Bisection:
    """Points are added where a quantity crosses a level, until the crossing is known well enough.

    Args:
        axis: ``alpha`` or ``sqrt_h_alpha``.
        start: first scale.
        end: last scale.
        column: of a member's last values; its geometric mean over the seeds is what crosses.
        level: the level.
        tolerance: decades of the interval that is left.
        points: scales in the first round, and inside the interval in each further one; all are members of one batch, so
            several cost little more than one.
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
            raise ConfigError(f"bisect goes from {self.start:g} to {self.end:g}: it must rise, from > 0")
        if not (self.level > 0 and self.tolerance > 0):
            raise ConfigError(f"bisect needs level > 0 and tolerance > 0, got {self.level:g} and {self.tolerance:g}")
        if self.points < 2:
            raise ConfigError(f"bisect needs points >= 2, got {self.points}")


@dataclass(frozen=True)
class SweepSpec:
    """A sweep: a grid of configurations, scales and seeds.

    Args:
        name: of the sweep, and of its folder unless another is given.
        grid: values by configuration key, as on the command line (``model.network.width``).
        scale: which of the two scales ``scales`` are; None leaves the configuration's alpha.
        scales: values of alpha, or of sqrt(h) alpha.
        seeds: initial seeds; None leaves the configuration's.
        kernels: also follow the flow on the frozen kernel of each network at initialisation, at the end, or both.
        bisect: look for a crossing in place of ``scales``.
        keep_checkpoints: keep those of runs that have ended.
    """

    name: str
    grid: dict[str, list[Any]] = field(default_factory=dict)
    scale: ScaleAxis | None = None
    scales: tuple[float, ...] = ()
    seeds: tuple[int, ...] | None = None
    kernels: tuple[KernelOf, ...] = ()
    bisect: Bisection | None = None
    keep_checkpoints: bool = False

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grid's values, by key."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def parse_sweep_spec(content: Mapping[str, Any], name: str) -> SweepSpec:
    """Checks the content of a sweep's file.

    Args:
        content: as YAML gives it.
        name: of the sweep if the content has none.

    Raises:
        ConfigError: an unknown key, or a value that cannot be used.
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
    spec = SweepSpec(
        name=_name(content.get("name", name)),
        grid={key: axis_values(key, value) for key, value in grid.items() if key not in (*given, _SEEDS)},
        scale=scale,
        scales=() if scale is None else tuple(positive_values(scale, grid[scale])),
        seeds=tuple(seed_values(grid[_SEEDS])) if _SEEDS in grid else None,
        kernels=_kernels(content.get("kernels")),
        bisect=bisect,
        keep_checkpoints=keep,
    )
    _require_count(spec)
    return spec


def _require_count(spec: SweepSpec) -> None:
    """A grid is parsed combination by combination, so one that is absurdly large would say nothing for hours."""
    combinations = math.prod(len(values) for values in spec.grid.values())
    members = combinations * max(1, len(spec.scales)) * max(1, len(spec.seeds or ()))
    if combinations > _MOST_COMBINATIONS or members > MOST_MEMBERS:
        raise ConfigError(
            f"the grid has {combinations} configurations and {members} members, expected {_MOST_COMBINATIONS} and "
            f"{MOST_MEMBERS} at most: take fewer values, or several sweeps"
        )


def as_argument(value: Any) -> str:
    """A value of the grid as the command line takes it."""
    return value if isinstance(value, str) else as_yaml(value)


def as_yaml(value: Any) -> str:
    """In one line; JSON has no word for infinity that the parser knows.

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
            raise ConfigError(f"bisect needs {key}: the scale to look {key}")
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
    """``model.alpha`` is another word for ``alpha``."""
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
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f": did you mean {near[0]}?" if near else f", expected some of {', '.join(known)}"
            raise ConfigError(f"{what} has no key {key}{hint}")
