"""Reading of a run's JSON files, with checks of sizes, types, and the names of a member's columns."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazy_lightning.errors import DataError
from lazy_lightning.plain_text import printable

CHECKSUM = "crc32"
"""Key of the checksum in a file; files of older versions do not have it."""
MOST_BYTES = 500_000_000
_WORDS = ("stop",)
"""Entries of a member that are strings; every other is a number, true, false or null."""
RESERVED_COLUMNS = ("run", "path", "member", "id", "point", "family", "status", "reason", "model", "h", "sqrt_h_alpha")
"""Columns of the table of runs that a run's file must not set for a member."""
_LONGEST_VALUE = 60


def read_object(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file; None if the file does not exist.

    Raises:
        DataError: the file cannot be read, is too large, or does not hold a JSON object.
    """
    if not path.is_file():
        return None
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(f"{printable(path)} has {size} bytes, expected {MOST_BYTES} at most")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} cannot be read ({printable(error)})") from error
    if not isinstance(content, dict):
        raise DataError(f"{printable(path)} holds {_format_value(content)}, expected a JSON object")
    return content


def json_checksum(content: Mapping[str, Any]) -> str:
    """Returns the CRC-32 of the names and values of a JSON object without its checksum, as hexadecimal digits.

    It does not depend on the order of the names or on white space.

    >>> json_checksum({"a": 0.1, "b": [1, None]}) == json_checksum({"b": [1, None], "a": 0.1, "crc32": "0"})
    True
    """
    kept = {name: value for name, value in content.items() if name != CHECKSUM}
    return f"{zlib.crc32(json.dumps(kept, sort_keys=True).encode()):08x}"


def checked_summary(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns a run's summary after a check of its fields and of the columns of its members.

    Raises:
        DataError: a field is missing or of another type, a member sets a column of :data:`RESERVED_COLUMNS`, or the
            content differs from the checksum in the file.
    """
    members = content.get("members")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise DataError(f"{printable(path)} has members: {_format_value(members)}, expected a list of JSON objects")
    for name, least in (("wall_seconds", 0.0), ("width", 0.0)):
        value = content.get(name)
        if value is not None and not (is_number(value) and value >= least):
            raise DataError(f"{printable(path)} has {name}: {_format_value(value)}, expected a number >= 0")
    for number, member in enumerate(members):
        _check_member(member, f"{printable(path)}: member {number}")
    if CHECKSUM in content and content[CHECKSUM] != (found := json_checksum(content)):
        raise DataError(
            f"{printable(path)} has been changed since it was written: its content has the checksum {found}, expected "
            f"{_format_value(content[CHECKSUM])}; restore a copy, or delete the file and resume the run, which writes "
            "it again"
        )
    return content


def is_number(value: Any) -> bool:
    """Returns whether a JSON value is a number that a float64 can represent."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


_LARGEST = 1.8e308  # a larger integer cannot be converted to a float; infinity and NaN are checked separately


def is_cell(value: Any) -> bool:
    """Returns whether a value is a number, infinity, NaN, true, false or null, as the cells of a table."""
    return value is None or isinstance(value, (bool, float)) or is_number(value)


def _check_member(member: Mapping[str, Any], where: str) -> None:
    if not isinstance(member.get("stop"), str):
        raise DataError(f"{where} has stop: {_format_value(member.get('stop'))}, expected a word")
    if not isinstance(member.get("failed", False), bool):
        raise DataError(f"{where} has failed: {_format_value(member['failed'])}, expected true or false")
    for name in ("alpha", "seed"):
        if not is_number(member.get(name)) or not math.isfinite(member[name]):
            raise DataError(f"{where} has {name}: {_format_value(member.get(name))}, expected a number")
    for name, value in member.items():
        if name in RESERVED_COLUMNS:
            raise DataError(f"{where} has the column {name}, which the store itself sets for each member")
        if name not in _WORDS and not is_cell(value):
            raise DataError(f"{where} has {printable(name)}: {_format_value(value)}, expected a number or null")


def _format_value(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
