"""npz and idx files: what is read, and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lazy_lightning.data import CIFAR10, KMNIST, MNIST, ArrayFile, FashionMNIST
from lazy_lightning.data.idx import read_idx, read_idx_folder
from lazy_lightning.data.npz import read_npz
from lazy_lightning.errors import ConfigError, DataError

MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_npz_round_trip(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    y = np.arange(30) % 3
    data = ArrayFile(str(save(tmp_path / "a.npz", x=x, y=y)), n_train=20, n_test=10, centre=False, sphere=False)
    data.setup()
    assert data.input_shape == (5,)
    torch.testing.assert_close(data.train.x, torch.from_numpy(x).double()[data.train.index])
    grey = read_npz(save(tmp_path / "b.npz", x=np.full((4, 6, 7), 255, np.uint8), y=np.arange(4)))
    assert grey.x.shape == (4, 1, 6, 7)
    assert grey.x.dtype == torch.uint8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((2, 3))}, r"holds the arrays \['x'\], but x and y are needed: add 'y'"),
        ({"x": np.ones((2, 3)), "y": np.zeros(3, int)}, r"shape \(2, 3\), but .* n = 3"),
        ({"x": np.ones((2, 3)), "y": np.array([0.5j, 1.0])}, "type complex128 .* floating-point targets"),
        ({"x": np.array([["a"], ["b"]]), "y": np.arange(2)}, "real numbers are needed"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.arange(2)}, "not finite"),
        ({"x": np.array([[{}], [{}]], dtype=object), "y": np.arange(2)}, "pickled objects are never loaded"),
    ],
)
def test_unusable_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        read_npz(path)
    assert str(path) in str(error.value)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*gone\.npz"):
        read_npz(tmp_path / "gone.npz")
    for number, content in enumerate((b"", b"not a zip", b"PK\x03\x04 broken")):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as numeric arrays"):
            read_npz(path)
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(DataError, match="cannot be read as numeric arrays"):
        read_npz(tmp_path / "single.npz")


def test_mnist_test_files(real_file: Callable[[str], Path]) -> None:
    folder = real_file("t10k-images-idx3-ubyte.gz").parent
    labels = read_idx(real_file("t10k-labels-idx1-ubyte.gz"))
    assert torch.bincount(labels.long()).tolist() == MNIST_TEST_COUNTS
    data = MNIST(n_train=500, n_test=300, n_kernel=100, files=str(folder))
    data.setup()
    assert data.input_shape == (1, 28, 28)
    classes = labels[data.train.index].long()
    assert torch.bincount(classes).tolist() == [50] * 10
    assert torch.equal(data.train.y, (1 - 2 * (classes % 2)).double())
    with pytest.raises(ConfigError, match=r"needs the official train and test parts, .* set pool: all"):
        MNIST(10, 10, files=str(folder), pool="official").setup()


MNIST_TEST_LABELS = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4]


@pytest.mark.parametrize("with_training_part", [False, True])
def test_the_files_of_another_set_are_refused(
    tmp_path: Path, idx_writer: Callable[..., None], with_training_part: bool
) -> None:
    """The files of MNIST and of Fashion-MNIST have the same names, and each was once taken for the other."""
    parts = {"t10k": np.array([*MNIST_TEST_LABELS, *range(10)])}
    if with_training_part:
        parts["train"] = np.arange(40) % 10
    for part, labels in parts.items():
        idx_writer(tmp_path / f"{part}-images-idx3-ubyte", np.zeros((len(labels), 28, 28)))
        idx_writer(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    MNIST(10, 10, files=str(tmp_path)).load_pool()
    for other in (FashionMNIST, KMNIST):
        with pytest.raises(
            DataError, match=f"holds the images of MNIST, .* but the data are {other.__name__}: set data"
        ):
            other(10, 10, files=str(tmp_path)).load_pool()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_folder_with_both_parts(mnist_layout: Callable[..., Path], digits: Any, end: str) -> None:
    folder = mnist_layout("parts", end=end)
    pool = read_idx_folder(folder)
    assert torch.equal(pool.x.squeeze(1), torch.from_numpy(digits[0]))
    assert torch.equal(pool.y, torch.from_numpy(digits[1]))
    data = MNIST(1000, 797, files=str(folder), pool="official")
    data.setup()
    assert sorted(data.test.index.tolist()) == list(range(1000, 1797))


def test_damaged_idx_is_refused(tmp_path: Path, idx_writer: Callable[..., None]) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    idx_writer(path, np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match=r"has train-images-idx3-ubyte but no train-labels-idx1-ubyte\[\.gz\]"):
        read_idx_folder(tmp_path)
    idx_writer(tmp_path / "train-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(DataError, match=r"shape \(2, 3, 3\) and .* shape \(3,\), but"):
        read_idx_folder(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"announces 18 values .* but holds 17"):
        read_idx(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="is not an idx file of unsigned bytes"):
        read_idx(path)
    packed = tmp_path / "broken.gz"
    packed.write_bytes(gzip.compress(b"0" * 1000)[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx(packed)


def test_files_that_do_not_fit_are_refused(tmp_path: Path, mnist_layout: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte\[\.gz\] nor t10k-images"):
        MNIST(10, 10, files=str(tmp_path)).setup()
    with pytest.raises(DataError, match=r"is neither a folder with idx files nor an \.npz file"):
        MNIST(10, 10, files=str(tmp_path / "x.csv")).setup()
    with pytest.raises(DataError, match=r"shape \(1, 8, 8\), but CIFAR10 has shape \(3, H, W\)"):
        CIFAR10(10, 10, files=str(mnist_layout("grey"))).setup()


def test_real_cifar_images(real_file: Callable[[str], Path]) -> None:
    path = real_file("cifar10_2k.npz")
    data = CIFAR10(200, 90, labels=["cat", "dog"], files=str(path), centre=False, sphere=False)
    data.setup()
    with np.load(path) as archive:
        x, y = archive["x"], archive["y"]
    index = data.train.index.numpy()
    np.testing.assert_array_equal(data.train.x.numpy(), x[index] / 255)
    np.testing.assert_array_equal(data.train.y.numpy(), np.where(y[index] == 3, 1, -1))
    assert data.train.y.sum() == 0
