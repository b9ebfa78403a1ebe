"""One run, one folder: what stands in it, and how far it has come. Read here, written by the callbacks.

The files are named in :mod:`lazy_lightning.runs.run_files`. None of them needs pickle; each is there whole or not at
all.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lazy_lightning.errors import DataError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs import configuration
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import CHECKPOINT, CONFIG, CURVES, FAILURE, SUMMARY
from lazy_lightning.runs.stored_json import checked_summary, is_cell, read_object

SCHEMA = 1
_TRACES = (SUMMARY, FAILURE, CURVES, CHECKPOINT)
"""A folder with a configuration of ours and one of these is a run."""
_HEAD = 65536
_CONFIG_OF_OURS = re.compile(rb"lazy[-_]lightning")
"""In the versions at the head of a configuration, and in the paths of its classes."""
_JSON_OF_OURS = re.compile(rb'\A\s*\{\s*"schema"\s*:')


class Status(StrEnum):
    """Of a member."""

    FINISHED = "finished"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    """Interrupted, or still running."""


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on the disk."""

    path: Path

    @property
    def is_run(self) -> bool:
        """Whether a run of this package has left something here, told by what its files say, also damaged ones.

        A folder of another program that holds a ``config.yaml`` and a ``summary.json`` is not a run.
        """
        return self.has_traces and (
            _CONFIG_OF_OURS.search(_head(self.path / CONFIG)) is not None
            or any(_JSON_OF_OURS.search(_head(self.path / name)) for name in (SUMMARY, FAILURE))
        )

    @property
    def has_traces(self) -> bool:
        """Whether the files of a run are here by name, whoever has written them."""
        return (self.path / CONFIG).is_file() and any((self.path / name).is_file() for name in _TRACES)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the run said when it ended, None if it has not.

        Raises:
            DataError: the file is damaged.
        """
        content = read_object(self.path / SUMMARY)
        return None if content is None else dict(checked_summary(content, self.path / SUMMARY))

    @property
    def failure(self) -> str | None:
        """Why there is no summary.

        Raises:
            DataError: the file is damaged.
        """
        content = read_object(self.path / FAILURE)
        if content is None:
            return None
        if not isinstance(content.get("reason"), str):
            raise DataError(f"{printable(self.path / FAILURE)} has no reason, expected a sentence under that key")
        return str(content["reason"])

    @property
    def ended(self) -> bool:
        """Whether every member has finished or failed."""
        if self.failure is not None:
            return True
        summary = self.summary
        return summary is not None and all(_status(member) != Status.UNFINISHED for member in summary["members"])

    def stamp(self) -> str:
        """Changes when the run's result does."""
        paths = (self.path / name for name in (CONFIG, SUMMARY, FAILURE))
        known = (path.stat() if path.is_file() else None for path in paths)
        return " ".join("-" if status is None else f"{status.st_mtime_ns}:{status.st_size}" for status in known)

    def fail(self, reason: str) -> None:
        """Records why the run has ended without a result."""
        content = {"schema": SCHEMA, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with written_atomically(self.path / FAILURE) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One row a member: who it is, how it ended, what it was configured to be, and its last values.

        ``run`` is the name given here, whatever the files say. The errors of an average over the run's seeds are
        named ``run/...``: they depend on which seeds shared the run, which a member's identity does not.

        Args:
            name: of the run, within its store.

        Raises:
            DataError: a file of the run is damaged, or its summary is not one of its configuration.
        """
        config = self._config()
        flat = configuration.flatten(config)
        group = configuration.family(config, configuration.source_family(config, self.path))
        summary, failure = self.summary, self.failure
        width = None if summary is None else summary.get("width")  # of a network of one's own, perhaps not told there
        h = flat.get("model.network.width") if width is None else width
        model = _model(config, flat)
        members = self._members(config)
        told = [] if summary is None else self._checked_members(summary["members"], members)
        rows = []
        for number, (alpha, seed) in enumerate(members):
            last = dict(told[number]) if told else {}
            status, reason = _ending(last, failure)
            point = configuration.point(group, alpha)
            rows.append(
                {
                    "run": name,
                    "member": number,
                    "id": configuration.member(point, seed),
                    "point": point,
                    "family": group,
                    "status": status.value,
                    "reason": reason,
                    "model": model,
                    "alpha": alpha,
                    "seed": seed,
                    "h": h,
                    "sqrt_h_alpha": _scale(h, alpha),
                    "wall_seconds": None if summary is None else summary.get("wall_seconds"),
                    **{key: _plain(value) for key, value in flat.items() if key not in _OWN},
                    **{column_name(key): value for key, value in last.items() if key not in _SAID_ELSEWHERE},
                }
            )
        return rows

    def _config(self) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            config = configuration.load_config(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"{printable(path)} cannot be read ({printable(error)})") from error
        for key in ("model", "data"):
            if not isinstance(config.get(key), (Mapping, str)):
                raise DataError(f"{printable(path)} has no {key}, expected the configuration of a run")
        return config

    def _members(self, config: Mapping[str, Any]) -> list[tuple[float, int]]:
        try:
            members = configuration.members(config)
            if not members:
                raise ValueError("there are none")
            return members
        except (TypeError, ValueError, OverflowError) as error:
            said = f"{printable(self.path / CONFIG)} does not tell its members ({printable(error)})"
            raise DataError(said) from error

    def _checked_members(self, told: Sequence[Mapping[str, Any]], members: Sequence[tuple[float, int]]) -> list[Any]:
        """What the summary says of each member, if it is about the members of the configuration."""
        named = [(member["alpha"], member["seed"]) for member in told]
        same = len(named) == len(members) and all(
            math.isclose(a, alpha, rel_tol=1e-9) and s == seed
            for (a, s), (alpha, seed) in zip(named, members, strict=True)
        )
        if not same:
            raise DataError(
                f"{printable(self.path / SUMMARY)} has members of other alphas or seeds than {CONFIG} beside it: one "
                "of the two belongs to another run"
            )
        return list(told)


_SAID_ELSEWHERE = ("alpha", "seed", "stop", "failed")
_OF_RUN = "ensemble_error"


def column_name(name: str) -> str:
    """A column's name in the tables of members: what depends on a member's company is the run's, and is named so.

    >>> column_name("test/ensemble_error"), column_name("test/error")
    ('run/test/ensemble_error', 'test/error')
    """
    return f"run/{name}" if name.rpartition("/")[2] == _OF_RUN else name


_ON_THE_WAY = ("running", "interrupted", "max_time")
"""Stops of members that were ended by the trainer, not by a limit of their own, and can go on."""

_OWN = ("model", "model.alpha", "model.seeds")
"""Configuration keys that the rows have in columns of their own."""


def _plain(value: Any) -> Any:
    """A value of the configuration that a table and JSON can hold: a date, say, as its words."""
    return value if isinstance(value, str) or is_cell(value) else str(value)


def _ending(last: Mapping[str, Any], failure: str | None) -> tuple[Status, str | None]:
    status = _status(last) if last else Status.UNFINISHED
    if status != Status.UNFINISHED:
        return status, str(last.get("stop"))
    if failure is not None:  # also of a member that a limit of the trainer has stopped on its way
        return Status.FAILED, failure
    return Status.UNFINISHED, str(last.get("stop")) if last else None


def _status(member: Mapping[str, Any]) -> Status:
    if member.get("failed"):
        return Status.FAILED
    return Status.UNFINISHED if member.get("stop") in _ON_THE_WAY else Status.FINISHED


def _model(config: Mapping[str, Any], flat: Mapping[str, Any]) -> str:
    """``network``, ``kernel at init``, ``kernel at end``, or the name of the class."""
    name = str(flat.get("model"))
    if name == "KernelModule":
        return f"kernel at {flat.get('model.at')}"
    return "network" if name in ("FlowModule", "MiniBatchModule") else name


def _scale(h: Any, alpha: float) -> float | None:
    return configuration.significant(float(h) ** 0.5 * alpha, 10) if isinstance(h, (int, float)) else None


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where there is no such file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD)
