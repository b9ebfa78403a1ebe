"""MNIST and its relatives: grey images of 28 x 28 pixels in idx files."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lazy_lightning.data.labels import numbered
from lazy_lightning.data.pool import Pool
from lazy_lightning.data.torchvision_data import TorchvisionData
from lazy_lightning.errors import ConfigError, DataError

EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]

_FIRST_LABELS = {
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9): "MNIST",
    (7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4): "MNIST",
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9, 1, 0, 6, 4): "FashionMNIST",
    (9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5, 7, 3, 4, 1, 2, 4, 8, 0): "FashionMNIST",
}
"""The first labels of the published parts, train and test, whose files have the same names for all sets."""

# Capitals and small letters of the same form share a class in these two splits.
_MERGED = set("cijklmopsuvwxyz")


class MNIST(TorchvisionData):
    """Hand-written digits: 70000 images, inputs ``(1, 28, 28)``, ten classes.

    Its arguments are those of :class:`TorchvisionData`, :class:`ImageData` and :class:`FlowData`.
    """

    def expected_files(self) -> tuple[Path, tuple[str, ...]]:
        """Four unpacked idx files under ``{root}/{set}/raw``."""
        return self.root / self.set_name / "raw", _idx_names("train") + _idx_names("t10k")

    def _read_files(self, files: Path) -> Pool:
        pool = super()._read_files(files)
        found = published_set(pool)
        if found is not None and found != self.set_name:
            raise DataError(
                f"{files} holds the images of {found}, as its first labels show, but the data are {self.set_name}: set "
                f"data to {found}, or give the files of {self.set_name}"
            )
        return pool


def published_set(pool: Pool) -> str | None:
    """Returns the set of which a pool holds a published part, by its first labels; None if it is not known.

    The files of MNIST and of sets made like it have the same names, shapes and numbers of images.
    """
    starts = [0]
    if pool.official_test is not None and bool(pool.official_test.any()):
        starts.append(int(pool.official_test.to(torch.uint8).argmax()))
    count = len(next(iter(_FIRST_LABELS)))
    labels = (tuple(pool.y[start : start + count].tolist()) for start in starts)
    return next((_FIRST_LABELS[first] for first in labels if first in _FIRST_LABELS), None)


class KMNIST(MNIST):
    """Kuzushiji-MNIST, cursive Japanese characters: 70000 images ``(1, 28, 28)``, ten named classes."""

    class_names = numbered("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class FashionMNIST(MNIST):
    """Fashion-MNIST, articles of clothing: 70000 images ``(1, 28, 28)``, ten named classes."""

    class_names = numbered(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


class EMNIST(MNIST):
    """Hand-written letters and digits, inputs ``(1, 28, 28)``, transposed as in the published files.

    Classes are the published numbers: 1..26 for ``letters``, so that parity gives "a" +1 and "b" -1. A split
    with an odd number of classes has one more class of sign +1 under ``labels: parity``.

    Args:
        emnist_split: which of the six published splits.
        options: arguments of :class:`TorchvisionData`, :class:`ImageData` and :class:`FlowData`.

    Raises:
        ConfigError: there is no such split.
    """

    def __init__(self, *args: Any, emnist_split: EmnistSplit = "letters", **options: Any) -> None:
        super().__init__(*args, **options)
        if emnist_split not in get_args(EmnistSplit):
            raise ConfigError(f"emnist_split must be one of {get_args(EmnistSplit)}, got {emnist_split!r}")
        self.emnist_split = emnist_split
        self.idx_prefix = f"emnist-{emnist_split}-"
        self.class_names = emnist_names(emnist_split)

    def constructor_options(self) -> dict[str, Any]:
        """The split, for torchvision."""
        return {"split": self.emnist_split}

    def expected_files(self) -> tuple[Path, tuple[str, ...]]:
        """Four unpacked idx files under ``{root}/EMNIST/raw``."""
        folder, _ = super().expected_files()
        return folder, _idx_names(f"{self.idx_prefix}train") + _idx_names(f"{self.idx_prefix}test")


def emnist_names(emnist_split: EmnistSplit) -> Mapping[str, int]:
    """Character -> class number of an EMNIST split.

    >>> emnist_names("letters")["c"], emnist_names("byclass")["A"], len(emnist_names("balanced"))
    (3, 10, 47)
    """
    if emnist_split == "letters":
        return {letter: value for value, letter in enumerate(string.ascii_lowercase, start=1)}
    characters = set(string.digits)
    if emnist_split in ("byclass", "bymerge", "balanced"):
        characters |= set(string.ascii_letters)
    if emnist_split in ("bymerge", "balanced"):
        characters -= _MERGED
    return numbered(*sorted(characters))


def _idx_names(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
