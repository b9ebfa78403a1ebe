"""Writers of the published formats, for the tests of the data room."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write unsigned bytes as idx, gzipped if the name ends in .gz."""
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def digit_bytes() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits as uint8 pixels 0..240 and classes."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return (images * 15).astype(np.uint8).reshape(-1, 8, 8), classes


@pytest.fixture(scope="session")
def idx_writer() -> Callable[[Path, np.ndarray], None]:
    return write_idx


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return digit_bytes()


@pytest.fixture
def mnist_layout(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., Path]:
    """Write the digits as idx parts, 1000 for training and 797 for test, into a folder."""

    def write(folder: str, train: str = "train", test: str = "t10k", end: str = "", shift: int = 0) -> Path:
        x, y = digits
        for part, rows in ((train, slice(1000)), (test, slice(1000, None))):
            write_idx(tmp_path / folder / f"{part}-images-idx3-ubyte{end}", x[rows])
            write_idx(tmp_path / folder / f"{part}-labels-idx1-ubyte{end}", y[rows] + shift)
        return tmp_path / folder

    return write
