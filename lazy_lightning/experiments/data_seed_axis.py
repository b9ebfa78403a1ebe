"""Configuration groups that differ in one seed of their data alone, trained as one run with data seeds.

A member of the joined run has the identity that it has in its own group, see
:func:`~lazy_lightning.runs.configuration.with_data_seed`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.runs import configuration

Axis = tuple[str, str]
"""The part of the configuration, ``data`` or ``model``, and the name of a seed in it."""
AXES: tuple[Axis, ...] = (("data", "train_seed"), ("data", "teacher_seed"), ("model", configuration.BATCH_SEED))


def data_seed_sets(
    groups: Sequence[ConfigGroup], joins: Callable[[Sequence[ConfigGroup]], bool]
) -> list[list[ConfigGroup]]:
    """Divides groups into sets that are trained as one run; most sets are one group.

    Args:
        groups: with the members that are to be trained; only groups with the same members share a run.
        joins: function that returns whether these groups can be trained as one run.
    """
    left, found = list(groups), []
    for axis in AXES:
        similar: dict[Any, list[ConfigGroup]] = {}
        for group in left:
            if _seed(group.config, axis) is not None:
                key = configuration.family(_with_seed(group.config, axis, 0)), tuple(sorted(group.members))
                similar.setdefault(key, []).append(group)
        for parts in similar.values():
            if len(parts) > 1 and joins(parts):
                found.append(parts)
                left = [group for group in left if group not in parts]
    return [*found, *([group] for group in left)]


def joined(parts: Sequence[ConfigGroup]) -> ConfigGroup:
    """Returns the group of the run that trains the members of several groups, which differ in one seed alone."""
    axis = next(a for a in AXES if len({_seed(part.config, a) for part in parts}) == len(parts))
    seeds = [_seed(part.config, axis) for part in parts]
    config = copy.deepcopy(dict(parts[0].config))
    name = axis[1]
    config["model"]["init_args"] |= {
        "data_seeds": seeds,
        "data_seed_keys": None if name == "train_seed" else [name],
    }
    setting = {key: value for key, value in parts[0].setting.items() if key != ".".join(axis)}
    return ConfigGroup.of(config, {**setting, ".".join(axis): seeds}, parts[0].members)


def parts_of(config: Mapping[str, Any], groups: Mapping[str, ConfigGroup]) -> list[ConfigGroup] | None:
    """Returns the groups whose members a run with data seeds trains; None if one is unknown, or it has no data seeds.

    Args:
        config: of a planned run.
        groups: by their keys.
    """
    seeds = configuration.data_seeds(config)
    if seeds is None:
        return None
    keys = [configuration.family(configuration.with_data_seed(config, seed)) for seed in dict.fromkeys(seeds)]
    return [groups[key] for key in keys] if all(key in groups for key in keys) else None


def _arguments(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    chosen = config.get(part)
    arguments = chosen.get("init_args") if isinstance(chosen, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def _seed(config: Mapping[str, Any], axis: Axis) -> int | None:
    """Returns the seed of a configuration on an axis; None if it has none, or one that is no number."""
    value = _arguments(config, axis[0]).get(axis[1])
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _with_seed(config: Mapping[str, Any], axis: Axis, seed: int) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    changed[axis[0]]["init_args"][axis[1]] = seed
    return changed
