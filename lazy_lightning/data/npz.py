"""Reading arrays ``x`` and ``y`` from an ``.npz`` file, without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lazy_lightning.data.pool import Pool, with_channels
from lazy_lightning.errors import DataError


def read_npz(path: Path) -> Pool:
    """The samples of an ``.npz`` file: ``x`` ``(n, ...)`` and integer ``y`` ``(n,)``.

    ``x`` keeps its shape, but ``(n, H, W)`` is read as grey images ``(n, 1, H, W)``. uint8 stays uint8, every
    other numeric type becomes float64.

    Raises:
        DataError: there is no such file, it is no ``.npz``, an array is missing, holds Python objects, has an
            unusable type or length, or ``x`` has values that are not finite.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}: give the path of an .npz file with arrays x and y")
    try:
        # Opened here, as numpy leaves its own handle open when the file is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            x, y = (_array(archive, key, path) for key in ("x", "y"))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as numeric arrays ({error}); pickled objects are never loaded: "
            "save it by numpy.savez(path, x=..., y=...) with numeric x and y"
        ) from error
    _check(x, y, path)
    inputs = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float64))
    return Pool(with_channels(inputs), torch.from_numpy(y.astype(np.int64)))


def _array(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> NDArray[np.generic]:
    if key not in archive.files:
        raise DataError(f"{path} holds the arrays {sorted(archive.files)}, but x and y are needed: add {key!r}")
    array: NDArray[np.generic] = archive[key]
    return array


def _check(x: NDArray[np.generic], y: NDArray[np.generic], path: Path) -> None:
    if x.dtype.kind not in "buif":
        raise DataError(f"x in {path} has type {x.dtype}, but real numbers are needed: convert it")
    if y.ndim != 1 or y.dtype.kind not in "bui":
        raise DataError(
            f"y in {path} has type {y.dtype} and shape {y.shape}, but one integer class per sample is needed"
        )
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"x in {path} has shape {x.shape}, but (n, ...) is needed with n = {len(y)}, the length of y")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"x in {path} holds values that are not finite: remove these samples")
