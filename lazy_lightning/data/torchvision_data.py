"""The base of datamodules over torchvision's image sets, or over files given in their place."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.idx import read_idx_folder
from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.npz import read_npz
from lazy_lightning.data.pool import Pool, join_parts
from lazy_lightning.errors import ConfigError, DataError


class TorchvisionData(ImageData):
    """An image set read by torchvision, or from ``files``.

    Args:
        root: the folder under which torchvision keeps its sets.
        download: fetch the set if it is not there.
        files: read this instead of asking torchvision: an ``.npz`` file with ``x`` and ``y``, or a folder with
            idx files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]``, one or both parts.
        pool: ``all`` splits the official train and test images together, as the published runs of
            arXiv:1906.08034 do; ``official`` draws the training and kernel sets from the official train part,
            the test set from the official test part.
        options: labels, preprocessing, sizes and seeds of :class:`ImageData` and :class:`FlowData`.

    Raises:
        ConfigError: an option has no such value.
        DataError: at setup, when files are missing or do not fit.
    """

    channels: int = 1
    idx_prefix: str = ""

    def __init__(
        self,
        *args: Any,
        root: str = "data",
        download: bool = False,
        files: str | None = None,
        pool: Literal["all", "official"] = "all",
        **options: Any,
    ) -> None:
        check_arguments(TorchvisionData, locals())
        super().__init__(*args, **options)
        if pool not in ("all", "official"):
            raise ConfigError(f"pool must be 'all' or 'official', got {pool!r}")
        self.root = Path(root).expanduser()
        self.download = download
        self.files = None if files is None else Path(files).expanduser()
        self.pool = pool

    @property
    def set_name(self) -> str:
        """The name of the class in ``torchvision.datasets``."""
        return type(self).__name__

    @abstractmethod
    def expected_files(self) -> tuple[Path, tuple[str, ...]]:
        """The folder torchvision reads, and the names of the files it needs there."""

    def constructor_options(self) -> dict[str, Any]:
        """Further arguments of the torchvision class."""
        return {}

    def prepare_data(self) -> None:
        """Download once per machine, before any process reads; nothing to do otherwise."""
        if self.download and self.files is None:
            self._ask_torchvision(train=True)

    def load_pool(self) -> Pool:
        """All images of both parts, or what ``files`` holds."""
        if self.files is not None:
            pool = self._read_files(self.files)
        else:
            pool = join_parts(self._ask_torchvision(train=True), self._ask_torchvision(train=False))
        return pool._replace(official_test=self._official_test(pool))

    def _read_files(self, files: Path) -> Pool:
        if files.is_dir():
            pool = read_idx_folder(files, self.idx_prefix)
        elif files.suffix == ".npz":
            pool = read_npz(files)
        else:
            raise DataError(f"files = {files} is neither a folder with idx files nor an .npz file: give one of them")
        if pool.x.ndim != 4 or pool.x.shape[1] != self.channels:
            raise DataError(
                f"the images in {files} have shape {tuple(pool.x.shape[1:])}, but {self.set_name} has shape "
                f"({self.channels}, H, W): check the file, or use ArrayFile for images of your own"
            )
        return pool

    def _official_test(self, pool: Pool) -> torch.Tensor | None:
        if self.pool == "all":
            return None
        flags = pool.official_test
        if flags is None or bool(flags.all()) or not bool(flags.any()):
            raise ConfigError(
                f"pool = 'official' needs the official train and test parts, but {self.files} does not hold both: "
                "set pool: all"
            )
        return flags

    def _ask_torchvision(self, train: bool) -> Pool:
        from torchvision import datasets

        source = getattr(datasets, self.set_name)
        try:
            with warnings.catch_warnings():
                # numpy 2.4.0 to 2.4.4 warns of the age of CIFAR's published files, which torchvision reads.
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                found = source(str(self.root), train=train, download=self.download, **self.constructor_options())
        except (RuntimeError, OSError) as error:
            raise DataError(self._missing(error)) from error
        x = torch.as_tensor(found.data)
        # torchvision gives grey images as (n, H, W) and colour images as (n, H, W, 3).
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
        return Pool(x, torch.as_tensor(found.targets).long())

    def _missing(self, error: Exception) -> str:
        folder, names = self.expected_files()
        reason = " ".join(str(error).split())
        failed = f"could not be downloaded ({reason})" if self.download else f"is not whole in {folder}"
        remedy = "" if self.download else ", or set download: true"
        return (
            f"{self.set_name} {failed}: put {', '.join(names)} into the folder {folder}, or set files to an .npz "
            f"with x and y{self._or_idx()}{remedy}"
        )

    def _or_idx(self) -> str:
        return " or a folder of idx files" if self.channels == 1 else ""
