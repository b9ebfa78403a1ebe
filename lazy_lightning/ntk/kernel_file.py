"""Kernels on disk: for sets of samples whose kernel does not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lazy_lightning.runs.atomic import written_atomically


@contextmanager
def kernel_file(path: str | Path, shape: Sequence[int], dtype: str = "float64") -> Iterator[NDArray[Any]]:
    """An array on disk to be given as ``out``; the file appears under its name once it is whole.

    Read it by ``numpy.load(path, mmap_mode="r", allow_pickle=False)``.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "kernel.npy"
    >>> with kernel_file(path, (2, 2)) as array:
    ...     array[:] = 1.0
    >>> float(np.load(path, mmap_mode="r", allow_pickle=False).sum())
    4.0
    """
    with written_atomically(Path(path)) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=tuple(shape))
        yield array
        array.flush()
