"""The index of a store: one row a member, rebuilt by scanning the runs, and kept beside them so that this is quick."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lazy_lightning.atomic import written_atomically
from lazy_lightning.errors import DataError, RunError
from lazy_lightning.experiments.run_folder import RunFolder, Status, find_runs

FILE_NAME = "index.json"
SCHEMA = 1
_ORDER = ("h", "alpha", "model", "point", "seed", "run", "member")

_log = logging.getLogger(__name__)


def scan(root: Path) -> list[dict[str, Any]]:
    """The rows of all runs at or under a folder. What has not changed since the last time is not read again.

    Raises:
        DataError: a run's files are damaged.
    """
    known = _cached(root)
    own = root.absolute().name  # if it is a run itself
    found: dict[str, dict[str, Any]] = {}
    for path in find_runs(root):
        name = path.relative_to(root).as_posix() if path != root else own
        folder = RunFolder(path)
        stamp = folder.stamp()
        before = known.get(name)
        found[name] = before if before and before["stamp"] == stamp else {"stamp": stamp, "rows": _rows(folder, name)}
    alone = RunFolder(root).is_run
    if found != known and not alone:
        _keep(root, found)
    paths = {name: str(root if alone else root / name) for name in found}
    return [{**row, "path": paths[name]} for name, entry in found.items() for row in entry["rows"]]


def table(rows: Sequence[dict[str, Any]], duplicates: bool = False) -> pd.DataFrame:
    """Rows as a table, in the order of h, alpha and seed.

    A member that has been trained more than once (a failed one again, or the same ``fit`` twice) is there once: the
    finished one, the last in the order of names.

    Args:
        rows: as from :func:`scan`.
        duplicates: keep them all.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        return frame
    frame = pd.DataFrame({name: _uniform(frame[name]) for name in frame.columns})
    if not duplicates:
        rank = frame["status"].map({Status.UNFINISHED: 0, Status.FAILED: 1, Status.FINISHED: 2})
        ranked = frame[["id", "run"]].assign(rank=rank)
        best = ranked.sort_values(["rank", "run"], kind="stable").drop_duplicates("id", keep="last")
        frame = frame.loc[best.index]
    return frame.sort_values([name for name in _ORDER if name in frame], kind="stable").reset_index(drop=True)


def _uniform(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers where all are numbers, else words: a column of a table has one type."""
    if column.dtype != object:
        return column
    present = [value for value in column if value is not None and value == value]
    if all(isinstance(value, bool) for value in present) and len(present) == len(column):
        return column.astype(bool)
    if present and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        return pd.to_numeric(column)
    return column.map(lambda value: None if value is None or value != value else str(value))


def _rows(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    try:
        return folder.rows(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # yaml's errors have several lines
        raise DataError(
            f"the run {folder.path} cannot be read ({said}): remove the folder, or mend its files"
        ) from error


def _cached(root: Path) -> dict[str, dict[str, Any]]:
    path = root / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    runs = content.get("runs") if isinstance(content, dict) and content.get("schema") == SCHEMA else None
    if not isinstance(runs, dict):
        return {}
    return {name: entry for name, entry in runs.items() if isinstance(entry, dict) and {"stamp", "rows"} <= set(entry)}


def _keep(root: Path, runs: dict[str, dict[str, Any]]) -> None:
    """It is a convenience: a store that may only be read is scanned each time."""
    try:
        with written_atomically(root / FILE_NAME) as temporary:
            temporary.write_text(json.dumps({"schema": SCHEMA, "runs": runs}) + "\n")
    except RunError as error:
        _log.info("the index is not kept: %s", error)
