"""Checksums of a run's arrays, which detect a flipped bit on disk even if the number remains valid."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "crc32"
"""Key of the checksum in the metadata of a file of arrays; files of older versions do not have it."""


def array_checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns the CRC-32 of the names, types, shapes and values of arrays, sorted by name, as hexadecimal digits.

    >>> array_checksum({"a": np.array([1.0, 2.0]), "b": np.array([3])})
    'ed896d83'
    """
    crc = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        crc = zlib.crc32(f"{name} {array.dtype.str} {arrays[name].shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def sort_metadata(path: Path) -> None:
    """Sorts the metadata in a safetensors file by name, so that equal arrays give equal files.

    The library writes the metadata in an order that changes from call to call. The header keeps its length: it
    consists of eight bytes with the length, compact JSON, and padding by spaces.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))


def require_checksum(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None) -> None:
    """Compares arrays that were read with the checksum in the metadata of their file, if there is one.

    Raises:
        ValueError: the checksums differ.
    """
    written = (metadata or {}).get(KEY)
    if written is not None and written != (found := array_checksum(arrays)):
        raise ValueError(f"its arrays have the checksum {found}, expected {written}: the file has been changed")
