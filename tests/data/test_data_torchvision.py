"""torchvision's own readers over its own folder layouts, and what is said when files are missing."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from lazy_lightning.data import CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, FashionMNIST
from lazy_lightning.data.torchvision_data import TorchvisionData
from lazy_lightning.errors import DataError

MNIST_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("cls", [MNIST, KMNIST, FashionMNIST])
def test_mnist_layout(
    cls: type[TorchvisionData], mnist_layout: Callable[..., Path], digits: Any, tmp_path: Path
) -> None:
    mnist_layout(f"{cls.__name__}/raw")
    data = cls(900, 700, root=str(tmp_path), pool="official", labels="multiclass", centre=False, sphere=False)
    data.prepare_data()
    data.setup()
    x, y = digits
    np.testing.assert_array_equal(data.test.x.squeeze(1).numpy(), x[data.test.index.numpy()] / 255)
    np.testing.assert_array_equal(data.train.y.numpy(), y[data.train.index.numpy()])
    assert data.train.index.max() < 1000 <= data.test.index.min()


def test_emnist_layout(mnist_layout: Callable[..., Path], tmp_path: Path) -> None:
    folder = mnist_layout("EMNIST/raw", "emnist-letters-train", "emnist-letters-test", shift=1)
    for place in ({"root": str(tmp_path)}, {"files": str(folder)}):
        data = EMNIST(100, 100, labels=["c", "a"], **place)
        data.setup()
        assert data.train.y.sum() == 0
    parity = EMNIST(1000, 797, root=str(tmp_path), centre=False, sphere=False)
    parity.setup()
    # Classes 1..10: the first, number 1, has index 0 and sign +1.
    pool = parity.load_pool()
    assert torch.equal(parity.train.y, (2 * (pool.y[parity.train.index] % 2) - 1).double())


class OldDtype:
    """A uint8 dtype as Python 2 pickled it: its ``align`` is the integer 0."""

    def __reduce__(self) -> Any:
        return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


class OldArray:
    """An array pickled with :class:`OldDtype`, as in CIFAR's published files."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __reduce__(self) -> Any:
        rebuild = np.zeros(0).__reduce__()[0]
        state = (1, self.values.shape, OldDtype(), False, self.values.tobytes())
        return rebuild, (np.ndarray, (0,), b"b"), state


def dump(path: Path, entry: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(entry, protocol=2))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_cifar(
    monkeypatch: pytest.MonkeyPatch, source: type, folder: Path, parts: dict[str, slice], key: str, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Real images in the published layout, with torchvision's checksums replaced by those of these files."""
    with np.load(path) as archive:
        x, y = archive["x"], archive["y"]
    sums = [
        [name, dump(folder / name, {"data": OldArray(x[rows].reshape(-1, 3072)), key: y[rows].tolist()})]
        for name, rows in parts.items()
    ]
    meta = dict(source.meta)  # type: ignore[attr-defined]
    meta["md5"] = dump(folder / meta["filename"], {meta["key"]: [str(number) for number in range(100)]})
    monkeypatch.setattr(source, "train_list", sums[:-1])
    monkeypatch.setattr(source, "test_list", sums[-1:])
    monkeypatch.setattr(source, "meta", meta)
    return x, y


CIFAR10_PARTS = {
    **{f"data_batch_{number + 1}": slice(300 * number, 300 * number + 300) for number in range(5)},
    "test_batch": slice(1500, None),
}
CIFAR100_PARTS = {"train": slice(1500), "test": slice(1500, None)}


@pytest.mark.parametrize(
    ("cls", "source", "parts", "key"),
    [
        (CIFAR10, datasets.CIFAR10, CIFAR10_PARTS, "labels"),
        (CIFAR100, datasets.CIFAR100, CIFAR100_PARTS, "fine_labels"),
    ],
)
def test_cifar_layout(
    cls: type[TorchvisionData],
    source: type,
    parts: dict[str, slice],
    key: str,
    real_file: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    data = cls(600, 400, root=str(tmp_path), pool="official", centre=False, sphere=False)
    folder, names = data.expected_files()
    x, y = write_cifar(monkeypatch, source, folder, parts, key, real_file("cifar10_2k.npz"))
    assert set(names) == {path.name for path in folder.iterdir()}
    data.setup()
    for split in (data.train, data.test):
        index = split.index.numpy()
        np.testing.assert_array_equal(split.x.numpy(), x[index] / 255)
        np.testing.assert_array_equal(split.y.numpy(), 1 - 2 * (y[index] % 2))
    assert data.train.index.max() < 1500 <= data.test.index.min()


@pytest.mark.parametrize(
    ("cls", "folder", "names"),
    [
        (MNIST, "MNIST/raw", MNIST_FILES),
        (FashionMNIST, "FashionMNIST/raw", MNIST_FILES),
        (EMNIST, "EMNIST/raw", "emnist-letters-train-images-idx3-ubyte, .*emnist-letters-test-labels-idx1-ubyte"),
        (CIFAR10, "cifar-10-batches-py", "data_batch_1, .* data_batch_5, test_batch, batches.meta"),
        (CIFAR100, "cifar-100-python", "train, test, meta"),
    ],
)
def test_missing_files_are_named(cls: type[TorchvisionData], folder: str, names: str, tmp_path: Path) -> None:
    place = tmp_path / folder
    with pytest.raises(DataError, match=f"put {names} into the folder {place}, .* or set download: true") as e:
        cls(10, 10, root=str(tmp_path)).setup()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("cls", [MNIST, CIFAR10])
def test_a_failed_download_is_told(cls: type[TorchvisionData], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Nothing listens on the discard port of this machine, so the connection is refused at once.
    nowhere = "http://127.0.0.1:9/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{nowhere}cifar.tar.gz")
    with pytest.raises(DataError, match=f"{cls.__name__} could not be downloaded .*refused.* into the folder") as e:
        cls(10, 10, root=str(tmp_path), download=True).prepare_data()
    assert "download: true" not in str(e.value)
    assert "\n" not in str(e.value)
