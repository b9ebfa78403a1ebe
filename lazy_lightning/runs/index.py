"""The index of a store: one row a member, rebuilt by scanning the runs, and kept beside them so that this is quick."""

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
"""2: columns of the run, not of a member, are named ``run/...``; there is a checksum."""
_ORDER = ("h", "alpha", "model", "point", "seed", "run", "member")

_log = logging.getLogger(__name__)
_logged: set[str] = set()
"""Sentences that this process has logged."""


class Store(NamedTuple):
    """What is stored below a folder."""

    rows: list[dict[str, Any]]
    """One a member, of all runs that can be read."""
    damaged: list[str]
    """One sentence for each run or folder that cannot, which names the file."""


def scan(root: Path) -> list[dict[str, Any]]:
    """The rows of all readable runs at or under a folder; a warning is logged for each one that is damaged."""
    store = read_store(root)
    for sentence in store.damaged:
        if sentence not in _logged:  # a sweep scans its store many times
            _logged.add(sentence)
            _log.warning("%s", sentence)
    return store.rows


def read_store(root: Path) -> Store:
    """All runs at or under a folder. What has not changed since the last time is not read again."""
    damaged: list[str] = []
    known = _cached(root)
    own = root.absolute().name  # if it is a run itself
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
    except DataError as error:
        raise DataError(f"{error}: remove the run, or mend the file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(
            f"the run {printable(folder.path)} cannot be read ({printable(said)}): remove the folder, or mend its files"
        ) from error


_START = '{"schema": %d, "crc32": %d, "runs": '


def _cached(root: Path) -> dict[str, dict[str, Any]]:
    """The entries of the index that are whole; an index that is damaged in any way is made again."""
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
    """Whether an entry has the types of one that :func:`_keep` has written, and its rows are of the run it names."""
    if not (isinstance(entry, dict) and isinstance(entry.get("stamp"), str) and isinstance(entry.get("rows"), list)):
        return False
    return all(isinstance(row, dict) and row.get("run") == name and _is_row(row) for row in entry["rows"])


def _is_row(row: dict[str, Any]) -> bool:
    words = all(isinstance(row.get(key), str) for key in ("id", "point", "family", "model"))
    numbers = all(is_number(row.get(key)) for key in ("alpha", "seed", "member"))
    cells = all(isinstance(value, str) or is_cell(value) for value in row.values())
    return words and numbers and cells and row.get("status") in set(Status)


def _index_text(runs: dict[str, Any]) -> str:
    """With a checksum, so that a bit that has flipped is not taken for a result."""
    body = json.dumps(runs)
    return f"{_START % (SCHEMA, zlib.crc32(body.encode()))}{body}}}\n"


def _keep(root: Path, runs: dict[str, dict[str, Any]]) -> None:
    """It is a convenience: a store that may only be read is scanned each time."""
    try:
        with written_atomically(root / FILE_NAME) as temporary:
            temporary.write_text(_index_text(runs))
    except RunError as error:
        _log.info("the index is not kept: %s", error)
