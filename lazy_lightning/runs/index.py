"""The index of a run store: one row for each member, rebuilt by scanning the runs, and cached in a file for speed."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lazy_lightning.errors import DataError, RunError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_folder import RunFolder, Status
from lazy_lightning.runs.stored_json import MOST_BYTES, is_cell, is_number
from lazy_lightning.runs.walk import find_runs

FILE_NAME = "index.json"
SCHEMA = 2
"""Version of the file. In version 2, columns of the run are named ``run/...``, and there is a checksum."""
_ORDER = ("h", "alpha", "model", "point", "seed", "run", "member")

_log = logging.getLogger(__name__)
_logged: set[str] = set()
"""Messages that this process has logged already."""


class Store(NamedTuple):
    """The runs below a folder."""

    rows: list[dict[str, Any]]
    """One row for each member of the runs that can be read."""
    damaged: list[str]
    """One message for each run or folder that cannot be read, with the name of the file."""


def scan(root: Path) -> list[dict[str, Any]]:
    """Returns the rows of all readable runs in a folder or below it, and logs a warning for each damaged run."""
    store = read_store(root)
    for sentence in store.damaged:
        if sentence not in _logged:  # a sweep scans its store many times
            _logged.add(sentence)
            _log.warning("%s", sentence)
    return store.rows


def read_store(root: Path) -> Store:
    """Reads all runs in a folder or below it; runs that are unchanged since the last call are taken from the index."""
    damaged: list[str] = []
    known = _cached(root)
    own = root.absolute().name  # the name of the run if the root is itself a run
    found: dict[str, dict[str, Any]] = {}
    paths: dict[str, Path] = {}
    for path in find_runs(root, damaged.append):
        name = path.relative_to(root).as_posix() if path != root else own
        folder = RunFolder(path)
        try:
            stamp, before = folder.stamp(), known.get(name)
            unchanged = before is not None and before["stamp"] == stamp
            found[name] = before if before and unchanged else {"stamp": stamp, "rows": _rows(folder, name)}
            paths[name] = path
        except DataError as error:
            damaged.append(str(error))
    if found != known and root not in paths.values():
        _keep(root, found)
    rows = [{**row, "path": str(paths[name])} for name in sorted(found) for row in found[name]["rows"]]
    return Store(rows, damaged)


def table(rows: Sequence[dict[str, Any]], duplicates: bool = False) -> pd.DataFrame:
    """Returns rows as a table sorted by h, alpha and seed.

    Of a member that has been trained more than once (again after a failure, or by the same ``fit`` twice), one row is
    kept: a finished one if there is any, and the last in the order of the runs' names.

    Args:
        rows: the rows of :func:`scan`.
        duplicates: whether to keep all rows of such members.
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
    """Converts a column to one type: numbers if all values are numbers, else strings."""
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
    except DataError as error:
        raise DataError(f"{error}: remove the run, or correct the file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = printable(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise DataError(
            f"the run {printable(folder.path)} cannot be read ({reason}): remove the folder, or correct its files"
        ) from error


_START = '{"schema": %d, "crc32": %d, "runs": '


def _cached(root: Path) -> dict[str, dict[str, Any]]:
    """Returns the valid entries of the index file; those of a damaged index are read from the runs again."""
    path = root / FILE_NAME
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("runs"), dict):
        return {}
    if text != _index_text(content["runs"]):
        return {}
    return {name: entry for name, entry in content["runs"].items() if _is_entry(name, entry)}


def _is_entry(name: str, entry: Any) -> bool:
    """Returns whether an entry has the types that :func:`_keep` writes, and its rows belong to the named run."""
    if not (isinstance(entry, dict) and isinstance(entry.get("stamp"), str) and isinstance(entry.get("rows"), list)):
        return False
    return all(isinstance(row, dict) and row.get("run") == name and _is_row(row) for row in entry["rows"])


def _is_row(row: dict[str, Any]) -> bool:
    words = all(isinstance(row.get(key), str) for key in ("id", "point", "family", "model"))
    numbers = all(is_number(row.get(key)) for key in ("alpha", "seed", "member"))
    cells = all(isinstance(value, str) or is_cell(value) for value in row.values())
    return words and numbers and cells and row.get("status") in set(Status)


def _index_text(runs: dict[str, Any]) -> str:
    """Returns the text of the index file, with a checksum that detects flipped bits."""
    body = json.dumps(runs)
    return f"{_START % (SCHEMA, zlib.crc32(body.encode()))}{body}}}\n"


def _keep(root: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Writes the index file, which is optional: a read-only store is scanned each time."""
    try:
        with written_atomically(root / FILE_NAME) as temporary:
            temporary.write_text(_index_text(runs))
    except RunError as error:
        _log.info("the index is not kept: %s", error)
