"""Reading arrays from an ``.npz`` file, without pickle, with every size checked before memory is taken for it."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazy_lightning.data.pool import Pool, with_channels
from lazy_lightning.errors import DataError
from lazy_lightning.memory import require_bytes

_DAMAGED = (
    ValueError,  # a header or a magic string that is not numpy's, pickled objects, a negative shape
    OSError,
    EOFError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    OverflowError,
    RecursionError,
    SyntaxError,
    RuntimeError,  # an encrypted entry
    NotImplementedError,  # an unknown compression
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile, the decompressors and numpy raise for bytes that are not what they should be."""
_HEADER = 1 << 16
"""Bytes a header may have at most; numpy writes 128."""


def read_npz(path: Path) -> Pool:
    """The samples of an ``.npz`` file: ``x`` ``(n, ...)``, and classes or targets ``y``.

    ``x`` keeps its shape, but ``(n, H, W)`` is read as grey images ``(n, 1, H, W)``. uint8 stays uint8, every
    other numeric type becomes float64. Integer ``y`` ``(n,)`` are classes; floating-point ``y`` ``(n,)`` or
    ``(n, c)`` are the targets of a regression.

    Raises:
        DataError: there is no such file, it is damaged or no ``.npz``, an array is missing, empty, holds Python
            objects, has an unusable type or shape, or has values that are not finite.
        MemoryShortageError: an array is larger than the free memory.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}: give the path of an .npz file with arrays x and y")
    try:
        with zipfile.ZipFile(path) as archive:
            x, y = (_array(archive, key, path) for key in ("x", "y"))
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} cannot be read as numeric arrays ({reason}); pickled objects are never loaded: "
            "save it by numpy.savez(path, x=..., y=...) with numeric x and y"
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} holds arrays that do not fit into memory: give fewer samples") from error
    _check(x, y, path)
    return Pool(with_channels(_tensor(x)), _targets(y))


def _array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[np.generic]:
    names = {Path(name).stem if name.endswith(".npy") else name: name for name in archive.namelist()}
    if key not in names:
        raise DataError(f"{path} holds the arrays {sorted(names)}, but x and y are needed: add {key!r}")
    info = archive.getinfo(names[key])
    with archive.open(info) as stream:
        _require_announced_size(stream, info.file_size)
    # A small archive can hold an array of any size: so many equal numbers that their compressed form is a few bytes.
    require_bytes(2 * info.file_size, torch.device("cpu"), f"the array {key} in {path}", "give fewer samples")
    with archive.open(info) as stream:
        array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):  # reading to the end is what checks the entry's checksum
            raise ValueError(f"the array {key} is followed by further bytes")
    return array


def _require_announced_size(stream: IO[bytes], size: int) -> None:
    """Compares the array that a header announces with the bytes that the archive holds, before any is allocated."""
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"the format version {version} is unknown")
    shape, _, dtype = read_header(stream, max_header_size=_HEADER)
    if any(extent < 0 for extent in shape) or (not dtype.hasobject and math.prod(shape) * dtype.itemsize > size):
        raise ValueError(f"an array of shape {shape} and type {dtype} is announced, but its entry has {size} bytes")


def _check(x: NDArray[np.generic], y: NDArray[np.generic], path: Path) -> None:
    if x.dtype.kind not in "buif":
        raise DataError(f"x in {path} has type {x.dtype}, but real numbers are needed: convert it")
    classes, targets = y.ndim == 1 and y.dtype.kind in "bui", y.ndim in (1, 2) and y.dtype.kind == "f"
    if not (classes or targets):
        raise DataError(
            f"y in {path} has type {y.dtype} and shape {y.shape}, but integer classes (n,) or floating-point targets "
            "(n,) or (n, c) are needed, one row per sample"
        )
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"x in {path} has shape {x.shape}, but (n, ...) is needed with n = {len(y)}, the length of y")
    if x.size == 0 or y.size == 0:
        raise DataError(f"x in {path} has shape {x.shape} and y has shape {y.shape}: there is no number in one of them")
    if y.dtype.kind == "u" and int(y.max()) > np.iinfo(np.int64).max:
        raise DataError(f"y in {path} holds the class {int(y.max())}, but classes are 64-bit signed integers: renumber")
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{name} in {path} holds values that are not finite: remove these samples")


def _tensor(x: NDArray[np.generic]) -> Tensor:
    # Files may be written in the other byte order, which torch does not have.
    return torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float64))


def _targets(y: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(y.astype(np.float64 if y.dtype.kind == "f" else np.int64))
