"""The user's own arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.npz import read_npz
from lazy_lightning.data.pool import Pool


class ArrayFile(ImageData):
    """Samples from an ``.npz`` file with ``x`` ``(n, ...)`` and integer classes ``y`` ``(n,)``.

    uint8 inputs are divided by 255, others are taken as they are; ``(n, H, W)`` is read as grey images
    ``(n, 1, H, W)``. Where ``y`` holds signs already, keep them by ``labels: {-1: -1, 1: 1}``.

    Args:
        path: the file; written by ``numpy.savez(path, x=x, y=y)``.
        options: labels, preprocessing, sizes and seeds of :class:`ImageData` and :class:`FlowData`.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def load_pool(self) -> Pool:
        """Everything in the file."""
        return read_npz(Path(self.path).expanduser())
