"""The file ``claims.json``: the measured numbers of claims, with the runs and the machine of each experiment."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.evaluation import Evaluated
from lazy_lightning.claims.experiments import EXPERIMENTS
from lazy_lightning.errors import DataError
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import SUMMARY


class MeasuredRuns(NamedTuple):
    """The runs that the claims of an experiment were measured on."""

    members: int
    """Number of trained networks and kernels."""
    wall_seconds: float
    """Their wall time in seconds, summed over runs."""
    day: str
    """Date at which the last of them ended, ``YYYY-MM-DD``; empty if it is not known."""
    machine: str
    """One line on the versions and the machine that evaluated them."""
    commands: tuple[str, ...]
    """The commands of the experiment at that time."""

    @classmethod
    def of(cls, name: str, runs: pd.DataFrame, machine: str) -> MeasuredRuns:
        """Describes a table of runs of the experiment ``name``."""
        each = runs.drop_duplicates("path")
        summaries = [Path(str(path)) / SUMMARY for path in each["path"]]
        newest = max((path.stat().st_mtime for path in summaries if path.is_file()), default=0.0)
        day = f"{datetime.fromtimestamp(newest):%Y-%m-%d}" if newest else ""
        return cls(len(runs), float(each["wall_seconds"].sum()), day, machine, _commands(name))

    def __str__(self) -> str:
        day = f", {self.day}" if self.day else ""
        return f"{self.members} members, wall time {duration(self.wall_seconds)}{day}"


class StoredNumbers(NamedTuple):
    """The content of a file ``claims.json``."""

    runs: Mapping[str, MeasuredRuns]
    """The runs by experiment."""
    measured: Mapping[str, tuple[Measurement, ...]]
    """The numbers by claim; a claim without numbers is absent."""


NOTHING = StoredNumbers({}, {})
"""What is stored before the first evaluation."""


def read_numbers(path: Path) -> StoredNumbers:
    """Returns the content of a file ``claims.json``, nothing if it does not exist.

    An experiment whose commands are others today is left out with its numbers, for they do not belong to it any more.

    Raises:
        DataError: the file is not one that :func:`write_numbers` has written.
    """
    if not path.exists():
        return NOTHING
    try:
        content = json.loads(path.read_text("utf-8"))
        runs = {name: _runs(entry) for name, entry in content["experiments"].items()}
        valid = {name: one for name, one in runs.items() if name in EXPERIMENTS and one.commands == _commands(name)}
        claims = [one for one in content["claims"] if one["experiment"] in valid and one["measured"]]
        return StoredNumbers(valid, {one["name"]: tuple(map(_measurement, one["measured"])) for one in claims})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is not a file of measured claims of this version ({error!r}): remove it, or choose another folder"
        ) from error


def write_numbers(path: Path, found: Iterable[Evaluated], runs: Mapping[str, MeasuredRuns]) -> None:
    """Writes the claims with their numbers, and the runs by experiment.

    Raises:
        OSError: the file cannot be written.
    """
    content = {"experiments": {name: one._asdict() for name, one in runs.items()}, "claims": list(map(_entry, found))}
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def with_stored(found: Sequence[Evaluated], evaluated: Iterable[str], stored: StoredNumbers) -> list[Evaluated]:
    """Replaces claims whose experiment was not evaluated by their stored numbers, where there are some.

    Args:
        found: the claims, those of other experiments without numbers.
        evaluated: the names of the experiments that were evaluated.
        stored: the numbers of an earlier evaluation.
    """
    now = set(evaluated)
    return [
        dataclasses.replace(one, measured=stored.measured[one.claim.name], reason="")
        if one.claim.experiment not in now and one.claim.name in stored.measured
        else one
        for one in found
    ]


def _commands(name: str) -> tuple[str, ...]:
    return tuple(EXPERIMENTS[name].commands.values())


def _runs(entry: Mapping[str, Any]) -> MeasuredRuns:
    return MeasuredRuns(**{**entry, "commands": tuple(entry["commands"])})


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    value, error = (math.nan if entry[key] is None else float(entry[key]) for key in ("value", "error"))
    return Measurement(value, error, str(entry["label"]))


def _entry(one: Evaluated) -> dict[str, Any]:
    claim = one.claim
    measured = [{**m._asdict(), "verdict": str(v)} for m, v in zip(one.measured, one.verdicts, strict=True)]
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "experiment": claim.experiment,
        "quantity": claim.quantity,
        "expected": [_finite(claim.expected.low), _finite(claim.expected.high)],
        "measured": [{key: _finite(value) for key, value in m.items()} for m in measured],
        "verdict": str(one.verdict) if one.verdict else None,
        "reason": one.reason,
    }


def _finite(value: Any) -> Any:
    """Returns None for a number that JSON cannot represent."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
