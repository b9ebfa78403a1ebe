"""Reading the idx files in which MNIST and its relatives are published, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lazy_lightning.data.pool import Pool, join_parts, with_channels
from lazy_lightning.errors import DataError

_UNSIGNED_BYTE = 0x08
_LARGEST = 1 << 31
"""Bytes a file may unpack to; EMNIST, the largest set published so, has 0.6 GB. A few kilobytes can unpack to more."""


def read_idx(path: Path) -> Tensor:
    """One idx file of unsigned bytes, as uint8 in the shape its header gives.

    The header is two zero bytes, a type code, the number of dimensions, and each dimension as a big-endian
    32-bit integer; the values follow in C order. ``.gz`` files are unpacked on the way.

    Raises:
        DataError: the file is damaged, or not idx with unsigned bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}): fetch it again") from error
    if len(content) > _LARGEST:
        raise DataError(f"{path} unpacks to more than {_LARGEST} bytes: fetch it again, or give an .npz file")
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{path} is not an idx file of unsigned bytes: give a file as published with MNIST")
    ndim = content[3]
    shape = struct.unpack(f">{ndim}I", content[4 : 4 + 4 * ndim])
    if not 1 <= ndim <= 4:
        raise DataError(f"{path} announces {ndim} dimensions, expected 1 (labels) to 4: fetch it again")
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * ndim)
    if len(values) != math.prod(shape):
        raise DataError(
            f"{path} announces {math.prod(shape)} values of shape {shape} but holds {len(values)}: fetch it again"
        )
    return torch.from_numpy(values.reshape(shape).copy())


def read_idx_folder(folder: Path, prefix: str = "") -> Pool:
    """The parts that a folder holds: ``train`` and ``t10k`` (or ``test``), images with labels.

    The names are ``{prefix}{part}-images-idx3-ubyte`` and ``{prefix}{part}-labels-idx1-ubyte``, each plain or
    with ``.gz``. Train samples come first.

    Raises:
        DataError: the folder has neither part, a part lacks its labels, or their numbers differ.
    """
    train = _read_part(folder, f"{prefix}train")
    test = _read_part(folder, f"{prefix}t10k") or _read_part(folder, f"{prefix}test")
    if train is None and test is None:
        raise DataError(
            f"{folder} holds neither {prefix}train-images-idx3-ubyte[.gz] nor "
            f"{prefix}t10k-images-idx3-ubyte[.gz]: put one or both there, with their labels"
        )
    return join_parts(train, test)


def _read_part(folder: Path, part: str) -> Pool | None:
    images = _plain_or_gz(folder, f"{part}-images-idx3-ubyte")
    labels = _plain_or_gz(folder, f"{part}-labels-idx1-ubyte")
    if images is None:
        return None
    if labels is None:
        raise DataError(f"{folder} has {images.name} but no {part}-labels-idx1-ubyte[.gz]: put it there")
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise DataError(
            f"{images} has shape {tuple(x.shape)} and {labels.name} has shape {tuple(y.shape)}, but (n, H, W) and "
            "(n,) are needed: fetch both again"
        )
    return Pool(with_channels(x), y.long())


def _plain_or_gz(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
