"""The folder of a run: reads its files, which the callbacks write, and determines the status of its members.

The names of the files are in :mod:`lazy_lightning.runs.run_files`. None of them needs pickle, and each is written
atomically.
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
"""A folder with a configuration of this package and one of these files is a run."""
_HEAD = 65536
_CONFIG_OF_OURS = re.compile(rb"lazy[-_]lightning")
"""Pattern in the versions at the head of a configuration and in the paths of its classes."""
_JSON_OF_OURS = re.compile(rb'\A\s*\{\s*"schema"\s*:')


class Status(StrEnum):
    """The status of a member in the run store."""

    FINISHED = "finished"
    """The member met a stopping criterion."""
    FAILED = "failed"
    """The member diverged, or its run failed."""
    UNFINISHED = "unfinished"
    """The member was interrupted or is still running."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run on disk."""

    path: Path

    @property
    def is_run(self) -> bool:
        """Whether the folder has files of a run of this package, which may be damaged, according to their content.

        A folder of another program with a ``config.yaml`` and a ``summary.json`` is not a run.
        """
        return self.has_traces and (
            _CONFIG_OF_OURS.search(_head(self.path / CONFIG)) is not None
            or any(_JSON_OF_OURS.search(_head(self.path / name)) for name in (SUMMARY, FAILURE))
        )

    @property
    def has_traces(self) -> bool:
        """Whether the folder has files with the names of a run's, regardless of their content."""
        return (self.path / CONFIG).is_file() and any((self.path / name).is_file() for name in _TRACES)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary that the run wrote at its end; None if it has not ended.

        Raises:
            DataError: the file is damaged.
        """
        content = read_object(self.path / SUMMARY)
        return None if content is None else dict(checked_summary(content, self.path / SUMMARY))

    @property
    def failure(self) -> str | None:
        """The reason why there is no summary; None if no failure was recorded.

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
        """Returns the times and sizes of the run's files, which change when its result changes."""
        paths = (self.path / name for name in (CONFIG, SUMMARY, FAILURE))
        known = (path.stat() if path.is_file() else None for path in paths)
        return " ".join("-" if status is None else f"{status.st_mtime_ns}:{status.st_size}" for status in known)

    def fail(self, reason: str) -> None:
        """Records why the run has ended without a result."""
        content = {"schema": SCHEMA, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with written_atomically(self.path / FAILURE) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Returns one row for each member: its identity, its end, its configuration, and its last values.

        The column ``run`` is always the given name. The errors of an average over the run's seeds are named
        ``run/...``, because they depend on which seeds are in the run, unlike a member's identity.

        Args:
            name: the name of the run within its store.

        Raises:
            DataError: a file of the run is damaged, or its summary does not belong to its configuration.
        """
        config = self._config()
        flat = configuration.flatten(config)
        summary, failure = self.summary, self.failure
        width = None if summary is None else summary.get("width")  # None if the user's network has no such attribute
        h = flat.get("model.network.width") if width is None else width
        model = _model(config, flat)
        members = self._members(config)
        data_seeds = configuration.data_seeds(config)
        own = {
            seed: self._identified(config, seed) for seed in dict.fromkeys([None] if data_seeds is None else data_seeds)
        }
        recorded = [] if summary is None else self._checked_members(summary["members"], members)
        rows = []
        for number, (alpha, seed) in enumerate(members):
            last = dict(recorded[number]) if recorded else {}
            status, reason = _ending(last, failure)
            group, flat = own[None if data_seeds is None else data_seeds[number]]
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
                    **{column_name(key): value for key, value in last.items() if key not in _IN_OTHER_COLUMNS},
                }
            )
        return rows

    def _identified(self, config: Mapping[str, Any], data_seed: int | None) -> tuple[str, dict[str, Any]]:
        """Returns the family and the flattened configuration of the members with one data seed."""
        own = config if data_seed is None else configuration.with_data_seed(config, data_seed)
        return configuration.family(own, configuration.source_family(own, self.path)), configuration.flatten(own)

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
            sentence = f"{printable(self.path / CONFIG)} does not define its members ({printable(error)})"
            raise DataError(sentence) from error

    def _checked_members(
        self, recorded: Sequence[Mapping[str, Any]], members: Sequence[tuple[float, int]]
    ) -> list[Any]:
        """Returns the members in the summary after a check that they are the members of the configuration."""
        named = [(member["alpha"], member["seed"]) for member in recorded]
        same = len(named) == len(members) and all(
            math.isclose(a, alpha, rel_tol=1e-9) and s == seed
            for (a, s), (alpha, seed) in zip(named, members, strict=True)
        )
        if not same:
            raise DataError(
                f"{printable(self.path / SUMMARY)} has members of other alphas or seeds than {CONFIG} in the same "
                "folder: one of the two belongs to another run"
            )
        return list(recorded)


_IN_OTHER_COLUMNS = ("alpha", "seed", "data_seed", "stop", "failed")
_OF_RUN = "ensemble_error"


def column_name(name: str) -> str:
    """Returns a column's name in tables of members; one that depends on the other members of a run gets ``run/``.

    >>> column_name("test/ensemble_error"), column_name("test/error")
    ('run/test/ensemble_error', 'test/error')
    """
    return f"run/{name}" if name.rpartition("/")[2] == _OF_RUN else name


_RESUMABLE = ("running", "interrupted", "max_time")
"""Reasons of members that were ended by the trainer, not by a stopping criterion, and can be resumed."""

_OWN = ("model", "model.alpha", "model.seeds", "model.data_seeds", "model.data_seed_keys")
"""Configuration keys with separate columns in the rows."""


def _plain(value: Any) -> Any:
    """Converts a value of the configuration to one that a table and JSON can hold, such as a date to a string."""
    return value if isinstance(value, str) or is_cell(value) else str(value)


def _ending(last: Mapping[str, Any], failure: str | None) -> tuple[Status, str | None]:
    status = _status(last) if last else Status.UNFINISHED
    if status != Status.UNFINISHED:
        return status, str(last.get("stop"))
    if failure is not None:  # also for a member that was ended by a limit of the trainer
        return Status.FAILED, failure
    return Status.UNFINISHED, str(last.get("stop")) if last else None


def _status(member: Mapping[str, Any]) -> Status:
    if member.get("failed"):
        return Status.FAILED
    return Status.UNFINISHED if member.get("stop") in _RESUMABLE else Status.FINISHED


def _model(config: Mapping[str, Any], flat: Mapping[str, Any]) -> str:
    """Returns ``network``, ``kernel at init``, ``kernel at end``, or the name of the class."""
    name = str(flat.get("model"))
    if name == "KernelModule":
        return f"kernel at {flat.get('model.at')}"
    return "network" if name in ("FlowModule", "MiniBatchModule") else name


def _scale(h: Any, alpha: float) -> float | None:
    return configuration.significant(float(h) ** 0.5 * alpha, 10) if isinstance(h, (int, float)) else None


def _head(path: Path) -> bytes:
    """Returns the first bytes of a file, or an empty string if it does not exist."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD)
