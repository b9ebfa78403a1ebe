"""A run's configuration as data: flattened for tables, and hashed into identities of members and runs.

The functions take the mapping in ``config.yaml`` and do not depend on the parser.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazy_lightning.deprecations import names_of_0_1_0, present_names
from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.run_files import CONFIG
from lazy_lightning.runs.yaml_file import read_yaml

WITHOUT_EFFECT = ("download", "root", "chunk_size", "cuda_graphs", "shard")
"""Arguments of this package's classes that affect the location of data or the use of memory, and results only in their
last digits. Arguments with these names of other classes are hashed, because ``root`` may select another data set."""
_OWN_PACKAGE = "lazy_lightning."
MOST_MEMBERS = 1_000_000
"""Largest number of members of a run or sweep; a larger one is refused as a mistake before it fills the memory."""
ADDED_SINCE_0_1_0: Mapping[str, Any] = {
    "n_val": 0,
    "val_seed": 0,
    "standardise_targets": False,
    "rule": None,
    "events": None,
    "data_seeds": None,
    "data_seed_keys": None,
    "decay_rate": 0.0,
    "decay_to": "zero",
    "paired": False,
    "online": False,
    "batch_seed": None,
    "stop_margin": None,
    "init": None,
    "init_alpha": None,
    "init_fresh": None,
    "batch_norm": "none",
    "layer_rates": None,
    "random_pixels": False,
}
"""Arguments that 0.1.0 did not have, with their defaults, for which a member has the same identity as in 0.1.0."""
DATA_SEEDS = ("data.train_seed", "data.teacher_seed")
"""Keys of the seeds in which members may differ beside the seed of the weights: those of the training sample and of the
teacher that labels it."""
BATCH_SEED = "batch_seed"
"""The seed of the order of mini-batches, an argument of the model, which a data seed can set like seeds of the data."""
_DIGITS = 12
_LIMITS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")
"""Options of the trainer for the length of mini-batch training and its gradients, which a flow does not use."""
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "min_epochs": (None,),
    "min_steps": (None,),
    "limit_train_batches": (None, 1.0),
    "overfit_batches": (None, 0.0),
    "gradient_clip_algorithm": (None, "norm"),
    "fast_dev_run": (None, False, 0),
    "reload_dataloaders_every_n_epochs": (None, 0),
    "plugins": (None, []),
    "seed_everything": (None, False),
}
"""Further keys that affect a result, each with the values that do not and are therefore not hashed.

All except ``seed_everything`` are options of the trainer. Keys that are not listed do not affect the result of a member
that has ended: ``max_time`` stops members that then count as unfinished, and ``deterministic`` or ``benchmark`` change
the last digits.
"""
_ONCE = ("ModelCheckpoint", "OnExceptionCheckpoint")
"""Callbacks of Lightning of which a run keeps only the last one of each class, as it does of observers."""


def load_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration in a run's folder.

    Raises:
        OSError, YAMLFileError: the file cannot be read.
    """
    return load_yaml(folder / CONFIG)


def load_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file of this package, empty if the file holds no mapping.

    Raises:
        OSError, YAMLFileError: the file cannot be read.
    """
    content = read_yaml(path)
    return content if isinstance(content, dict) else {}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens ``model`` and ``data`` to the keys of the command line; the value of a class's key is its name.

    >>> flatten({"model": {"class_path": "pkg.FlowModule", "init_args": {"dt": 1.0, "network": {
    ...     "class_path": "lazy_lightning.nn.FC", "init_args": {"width": 30}}}}})
    {'model': 'FlowModule', 'model.dt': 1.0, 'model.network': 'FC', 'model.network.width': 30}
    """
    chosen = present_names({name: config[name] for name in ("model", "data") if name in config})
    precision = (config.get("trainer") or {}).get("precision")
    return dict(_flat(chosen)) | ({} if precision is None else {"trainer.precision": str(precision)})


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and "class_path" in value:
        yield key, str(value["class_path"]).rpartition(".")[2]
        value = value.get("init_args") or {}
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield key, json.dumps([_plain(part) for part in value])
    else:
        yield key, value


def members(config: Mapping[str, Any]) -> list[tuple[float, int]]:
    """Returns the (alpha, seed) of each member of a configuration, in the order of the run's batch axis.

    Members with several data seeds occur once for each of them, see :func:`data_seeds`.

    >>> members({"model": {"init_args": {"alpha": [0.1, 1], "seeds": 2}}})
    [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]

    Raises:
        ConfigError: ``seeds`` is neither a number nor a list, or there are more than ``MOST_MEMBERS`` members.
    """
    arguments = _model_arguments(config)
    alpha, seeds = arguments.get("alpha", 1.0), arguments.get("seeds", 1)
    alphas = alpha if isinstance(alpha, list) else [alpha]
    if isinstance(seeds, (bool, str, Mapping)):
        raise ConfigError(f"seeds is {seeds!r}, expected a number of seeds or a list of integers")
    data = arguments.get("data_seeds")
    if isinstance(data, (bool, Mapping)) or (isinstance(data, str) and data != "weights"):
        raise ConfigError(f"data_seeds is {data!r}, expected a number of seeds, a list of integers, weights or null")
    sets = 1 if data is None or data == "weights" else data if isinstance(data, int) else len(data)
    count = len(alphas) * (seeds if isinstance(seeds, int) else len(seeds)) * sets
    if count > MOST_MEMBERS:
        raise ConfigError(f"the configuration has {count} members, expected {MOST_MEMBERS} at most: give fewer seeds")
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    return [(float(a), int(s)) for a in alphas for s in chosen for _ in range(sets)]


def data_seeds(config: Mapping[str, Any]) -> list[int] | None:
    """Returns the data seed of each member in the order of :func:`members`, None if they share the data.

    >>> data_seeds({"model": {"init_args": {"seeds": 2, "data_seeds": [5, 7]}}})
    [5, 7, 5, 7]

    Raises:
        ConfigError: the members are not valid.
    """
    arguments = _model_arguments(config)
    given = arguments.get("data_seeds")
    if given is None:
        return None
    if given == "weights":
        return [seed for _, seed in members(config)]
    chosen = list(range(given)) if isinstance(given, int) else [int(seed) for seed in given]
    return chosen * (len(members(config)) // max(1, len(chosen)))


def with_data_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns the configuration of the members with one data seed, as if they were in a run of their own.

    So a member has the same identity whether its training set is that of the datamodule or of its data seed.
    """
    changed = copy.deepcopy(dict(config))
    arguments, data = changed["model"]["init_args"], changed["data"].setdefault("init_args", {})
    keys = arguments.pop("data_seed_keys", None) or ["train_seed"]
    arguments["data_seeds"] = arguments["data_seed_keys"] = None
    arguments.update({key: seed for key in keys if key == BATCH_SEED})
    data.update({key: seed for key in keys if key != BATCH_SEED})
    return changed


def _model_arguments(config: Mapping[str, Any]) -> Mapping[str, Any]:
    model = config.get("model")
    return (model.get("init_args") or {}) if isinstance(model, Mapping) else {}


def family(config: Mapping[str, Any], source: str | None = None) -> str:
    """Returns the hash of a configuration without alpha and seeds; members that differ only in these share it.

    It includes everything else that a result depends on: the model, the data, the precision, the trainer's options for
    batches, steps and gradients if set, ``seed_everything`` if set, and the callbacks, because they determine the
    measured columns and may end training. It excludes the names of folders, the logger and the device.

    Args:
        config: the content of ``config.yaml``.
        source: for a kernel at the end of training, the family of the networks.
    """
    config = names_of_0_1_0(config)  # so that renaming a class does not change the identities of members
    model, trainer = _plain(config.get("model")), config.get("trainer") or {}
    arguments = model.get("init_args") if isinstance(model, dict) else None
    if isinstance(arguments, dict):
        for name in ("alpha", "seeds"):
            arguments.pop(name, None)
        if arguments.get("checkpoint") is not None:
            arguments["checkpoint"] = source or arguments["checkpoint"]
    precision = str(trainer.get("precision"))
    content = [model, _plain(config.get("data")), precision, _observers(trainer.get("callbacks"))]
    limits = {name: _plain(trainer[name]) for name in _LIMITS if trainer.get(name) not in (None, -1)}
    limits |= {name: _plain(value) for name, value in _changed(config, trainer) if not _has_no_effect(name, trainer)}
    return _digest([*content, limits] if limits else content)


def _changed(config: Mapping[str, Any], trainer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the keys of :data:`_DEFAULTS` with other values; 1 and 1.0 differ: one batch, or all batches."""
    for name, defaults in _DEFAULTS.items():
        value = (config if name == "seed_everything" else trainer).get(name)
        if not any(type(value) is type(default) and value == default for default in defaults):
            yield name, value


def _has_no_effect(name: str, trainer: Mapping[str, Any]) -> bool:
    return name == "gradient_clip_algorithm" and not trainer.get("gradient_clip_val")


def point(family_id: str, alpha: float) -> str:
    """Returns the hash of a family and alpha; members that differ only in their seed share it."""
    return _digest([family_id, significant(alpha)])


def member(point_id: str, seed: int) -> str:
    """Returns the identity of a member, the hash of its point and its seed."""
    return _digest([point_id, int(seed)])


def run(family_id: str, alphas: Sequence[float], seeds: Sequence[int]) -> str:
    """Returns the name of the run of all pairs of these alphas and seeds, a hash."""
    return _digest([family_id, [significant(alpha) for alpha in alphas], [int(seed) for seed in seeds]])


def significant(value: float, digits: int = _DIGITS) -> float:
    """Rounds to a number of significant digits, so that a power of ten is the same number on every machine.

    >>> significant(0.1 + 0.2)
    0.3
    """
    return float(f"{value:.{digits - 1}e}") if math.isfinite(value) else value


def source_family(config: Mapping[str, Any], folder: Path) -> str | None:
    """Returns the family of the networks of a frozen kernel, or None if their run is not found at its path."""
    model = config.get("model")
    arguments = (model.get("init_args") or {}) if isinstance(model, Mapping) else {}
    checkpoint = arguments.get("checkpoint")
    if checkpoint is None:
        return None
    for base in (Path(), folder.parent):  # the path as written, or next to this run if the store has been moved
        sibling = base / (Path(checkpoint).parent if base == Path() else Path(checkpoint).parent.name)
        if (sibling / CONFIG).is_file():
            return family(load_config(sibling))
    return None


def _observers(callbacks: Any) -> list[Any]:
    """Returns the callbacks sorted by name, and of two observers of the same class only the later one, as a run does.

    Several of Lightning's own callbacks of a class are kept, such as two ``EarlyStopping`` of different columns.
    """
    items = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    named: dict[tuple[str, int], Any] = {}
    for number, item in enumerate(items):
        name = str(item.get("class_path") if isinstance(item, Mapping) else item)
        several = name.startswith(("pytorch_lightning.", "lightning.")) and not name.endswith(_ONCE)
        named[name, number if several else 0] = item
    return [_plain(named[key]) for key in sorted(named)]


def _plain(value: Any, own: bool = True) -> Any:
    """Returns plain data with sorted keys, without the arguments that do not affect results.

    Args:
        value: a part of a configuration.
        own: whether it is an argument of a class of this package.
    """
    if isinstance(value, Mapping):
        own = str(value["class_path"]).startswith(_OWN_PACKAGE) if "class_path" in value else own
        return {str(k): _plain(value[k], own) for k in sorted(value, key=str) if _counts(k, value[k], own)}
    if isinstance(value, (list, tuple)):
        return [_plain(part, own) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _counts(key: Any, value: Any, own: bool) -> bool:
    if key in ADDED_SINCE_0_1_0:
        default = ADDED_SINCE_0_1_0[key]
        return value != default or isinstance(value, bool) != isinstance(default, bool)
    return not (own and key in WITHOUT_EFFECT)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
