"""Specification of an executor: its name and the resources of a batch, from a sweep's file and the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lazy_lightning.errors import ConfigError, suggestion

ExecutorName = Literal["local", "ray", "slurm"]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "local": ("retries",),
    "ray": ("retries", "cpus", "gpus", "address"),
    "slurm": ("retries", "cpus", "partition", "time", "gres", "mem", "account", "qos", "constraint", "setup"),
}
"""Keys of each executor, besides its name."""


@dataclass(frozen=True)
class ExecutorSpec:
    """The executor of a sweep and the resources of each of its batches.

    Args:
        name: ``local``, ``ray`` or ``slurm``.
        retries: how often a batch whose process has died is resumed before it is divided into halves.
        cpus: number of cores of a batch (ray, slurm).
        gpus: number of GPUs of a batch, or a fraction of one (ray).
        address: address of a Ray cluster, or ``auto``; None starts Ray on this machine.
        partition: partition of SLURM.
        minutes: time limit of a job of SLURM.
        gres: generic resources of a job of SLURM, such as ``gpu:1``.
        mem: memory of a job of SLURM in GB.
        account: account of SLURM.
        qos: quality of service of SLURM.
        constraint: features of a node that a job of SLURM needs.
        setup: lines of shell that a job of SLURM runs first, such as ``module load cuda``.
    """

    name: ExecutorName = "local"
    retries: int = 1
    cpus: int = 1
    gpus: float | None = None
    address: str | None = None
    partition: str | None = None
    minutes: int = 60
    gres: str | None = None
    mem: float | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()

    @property
    def per_device(self) -> int:
        """Number of batches that share one GPU."""
        return math.floor(1 / self.gpus + 1e-9) if self.gpus is not None and 0 < self.gpus < 1 else 1


def executor_spec(content: Any, options: Mapping[str, Any] | None = None) -> ExecutorSpec:
    """Returns the specification of an executor.

    Args:
        content: the value of ``executor`` in a sweep's file: a name, or keys and values; None for ``local``.
        options: options of the command line by key, ``executor`` being the name; those that are not None have
            precedence.

    Raises:
        ConfigError: a key is unknown or not one of this executor, or a value is invalid.

    >>> executor_spec("slurm", {"time": "1-02:30:00", "partition": "gpu"}).minutes
    1590
    """
    given = _content(content)
    options = {key: value for key, value in (options or {}).items() if value is not None}
    name = options.pop("executor", given.get("name", "local"))
    if name not in _KEYS:
        raise ConfigError(f"the executor is {name!r}, expected {', '.join(get_args(ExecutorName))}")
    if name != given.get("name", name):  # the file's resources are those of another executor
        given = {key: value for key, value in given.items() if key in _KEYS[name]}
    values = {**{key: value for key, value in given.items() if key != "name"}, **options}
    for key in values:
        if key not in _KEYS[name]:
            raise ConfigError(_unknown(key, name))
    checked = {_FIELDS.get(key, key): _CHECKS[key](key, value) for key, value in values.items() if value is not None}
    return ExecutorSpec(name=name, **checked)


def _content(content: Any) -> dict[str, Any]:
    if content is None:
        return {}
    if isinstance(content, str):
        return {"name": content}
    if not isinstance(content, Mapping) or "name" not in content:
        raise ConfigError(f"executor is {content!r}, expected a name, or keys such as {{name: slurm, partition: gpu}}")
    return dict(content)


def _unknown(key: str, name: str) -> str:
    others = [other for other, keys in _KEYS.items() if key in keys]
    if others:
        return f"the executor {name} has no {key}, which is a key of the executor {others[0]}: leave it out"
    hint = suggestion(str(key), _KEYS[name]) or f", expected some of {', '.join(_KEYS[name])}"
    return f"the executor {name} has no key {key}{hint}"


def _whole(least: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{key} is {value!r}, expected an integer of at least {least}")
        return value

    return check


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigError(f"{key} is {value!r}, expected a positive number")
    return float(value)


def _gpus(key: str, value: Any) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    share = _number(key, value)
    if share > 1 and share != int(share):
        raise ConfigError(f"{key} is {value!r}, expected a fraction of one GPU or a whole number of GPUs")
    return share


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\n" in value:
        raise ConfigError(f"{key} is {value!r}, expected a line of text")
    return value


def _lines(key: str, value: Any) -> tuple[str, ...]:
    return tuple(_word(key, line) for line in (value if isinstance(value, list) else [value]))


_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)")


def _minutes(key: str, value: Any) -> int:
    """Returns a time in minutes, rounded up, from minutes or from ``[D-]HH:MM:SS``."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    seconds = 0
    if match is not None:
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = 86400 * days + 3600 * hours + 60 * minutes + rest
    if seconds <= 0:
        raise ConfigError(f"{key} is {value!r}, expected minutes, HH:MM:SS or D-HH:MM:SS")
    return math.ceil(seconds / 60)


_FIELDS = {"time": "minutes"}
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "retries": _whole(0),
    "cpus": _whole(1),
    "gpus": _gpus,
    "address": _word,
    "partition": _word,
    "time": _minutes,
    "gres": _word,
    "mem": _number,
    "account": _word,
    "qos": _word,
    "constraint": _word,
    "setup": _lines,
}
