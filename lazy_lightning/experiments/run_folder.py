"""One run, one folder: what stands in it, and how far it has come. Read here, written by the callbacks.

The files are named in :mod:`lazy_lightning.run_files`. None of them needs pickle; each is there whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lazy_lightning import configuration
from lazy_lightning.atomic import written_atomically
from lazy_lightning.run_files import CHECKPOINT, CONFIG, CURVES, FAILURE, SUMMARY

SCHEMA = 1
_TRACES = (SUMMARY, FAILURE, CURVES, CHECKPOINT)
"""A folder with a configuration and one of these is a run."""


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
        """Whether a run has left something here."""
        return (self.path / CONFIG).is_file() and any((self.path / name).is_file() for name in _TRACES)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the run said when it ended, None if it has not."""
        return _read(self.path / SUMMARY)

    @property
    def failure(self) -> str | None:
        """Why there is no summary."""
        content = _read(self.path / FAILURE)
        return None if content is None else str(content.get("reason"))

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
        return " ".join(f"{path.stat().st_mtime_ns}" if path.is_file() else "-" for path in paths)

    def fail(self, reason: str) -> None:
        """Records why the run has ended without a result."""
        content = {"schema": SCHEMA, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with written_atomically(self.path / FAILURE) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One row a member: who it is, how it ended, what it was configured to be, and its last values.

        Args:
            name: of the run, within its store.
        """
        config = configuration.load_config(self.path)
        flat = configuration.flatten(config)
        family = configuration.family(config, configuration.source_family(config, self.path))
        summary, failure = self.summary, self.failure
        width = None if summary is None else summary.get("width")  # of a network of one's own, perhaps not told there
        h = flat.get("model.network.width") if width is None else width
        model = _model(config, flat)
        told = [] if summary is None else summary["members"]
        rows = []
        for number, (alpha, seed) in enumerate(configuration.members(config)):
            last = dict(told[number]) if number < len(told) else {}
            status, reason = _ending(last, failure)
            point = configuration.point(family, alpha)
            rows.append(
                {
                    "run": name,
                    "member": number,
                    "id": configuration.member(point, seed),
                    "point": point,
                    "family": family,
                    "status": status.value,
                    "reason": reason,
                    "model": model,
                    "alpha": alpha,
                    "seed": seed,
                    "h": h,
                    "sqrt_h_alpha": _scale(h, alpha),
                    "wall_seconds": None if summary is None else summary["wall_seconds"],
                    **{key: value for key, value in flat.items() if key not in _OWN},
                    **{key: value for key, value in last.items() if key not in ("alpha", "seed", "stop", "failed")},
                }
            )
        return rows


_ON_THE_WAY = ("running", "interrupted", "max_time")
"""Stops of members that were ended by the trainer, not by a limit of their own, and can go on."""

_OWN = ("model", "model.alpha", "model.seeds")
"""Configuration keys that the rows have in columns of their own."""


def find_runs(root: Path) -> Iterator[Path]:
    """Run folders at or under ``root``, in the order of their names; runs are not looked for within runs."""
    if RunFolder(root).is_run:
        yield root
    elif root.is_dir():
        for path in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
            yield from find_runs(path)


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
    return "network" if name in ("FlowModule", "ScaledModule") else name


def _scale(h: Any, alpha: float) -> float | None:
    return configuration.significant(float(h) ** 0.5 * alpha, 10) if isinstance(h, (int, float)) else None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else None
