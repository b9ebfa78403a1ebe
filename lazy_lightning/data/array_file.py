"""The user's own arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.npz import read_npz
from lazy_lightning.data.pool import Pool
from lazy_lightning.errors import ConfigError


class ArrayFile(ImageData):
    """Samples from an ``.npz`` file with ``x`` ``(n, ...)`` and ``y``: classes, or targets of a regression.

    uint8 inputs are divided by 255, others are taken as they are; ``(n, H, W)`` is read as grey images
    ``(n, 1, H, W)``. Integer ``y`` ``(n,)`` are classes. Where they are signs already, keep them by
    ``labels: {-1: -1, 1: 1}``. Floating-point ``y`` ``(n,)`` or ``(n, c)`` are targets: set
    ``labels: regression``, and a loss that fits, ``mse``. :class:`TableFile` reads CSV and parquet.

    Args:
        path: the file; written by ``numpy.savez(path, x=x, y=y)``.
        options: labels, preprocessing, sizes and seeds of :class:`ImageData` and :class:`FlowData`.

    Raises:
        ConfigError: the name of the file is that of a table.
        DataError: at setup, when the file cannot be used.
    """

    def __init__(self, path: str, **options: Any) -> None:
        check_arguments(ArrayFile, locals())
        super().__init__(**options)
        if Path(path).suffix.lower() in (".csv", ".parquet", ".tsv"):
            raise ConfigError(f"path is {path}, a table, but ArrayFile reads .npz files: set data to TableFile")
        self.path = path

    def load_pool(self) -> Pool:
        """Reads everything in the file."""
        return read_npz(Path(self.path).expanduser())
