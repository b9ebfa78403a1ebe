"""Data of one's own: real-valued targets, tables, datasets and datamodules, a validation set; damaged files."""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lazy_lightning.cli import main
from lazy_lightning.data import ArrayFile, Digits, FromDataModule, FromDataset, Stripe, TableFile, idx
from lazy_lightning.data.npz import read_npz
from lazy_lightning.errors import ConfigError, DataError, LazyLightningError
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

PLAIN = {"centre": False, "sphere": False}
REGRESSION: dict[str, Any] = {**PLAIN, "labels": "regression", "n_train": 12, "n_test": 6}


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


# ---------------------------------------------------------------------- rare classes


def test_a_training_set_without_a_class_is_refused(tmp_path: Path) -> None:
    """Three of 120 samples are of one class, and the test set takes all of them."""
    y = np.zeros(120, int)
    y[:3] = 1
    path = saved(tmp_path / "rare.npz", x=np.random.default_rng(0).normal(size=(120, 4)), y=y)
    data = ArrayFile(path, n_train=60, n_test=40)
    with pytest.raises(DataError, match=r"training set of 60 samples holds only 1 of the 2 labels \(\+1\)"):
        data.setup()
    ArrayFile(path, n_train=60, n_test=4).setup()  # one of the three is left


def test_an_original_class_that_only_the_test_set_has_is_told(tmp_path: Path) -> None:
    y = np.arange(120) % 4
    y[y == 2] = 0
    y[:2] = 2
    path = saved(tmp_path / "rare.npz", x=np.random.default_rng(0).normal(size=(120, 4)), y=y)
    with pytest.warns(UserWarning, match=r"samples of the classes \[2\], of which the training set has none"):
        ArrayFile(path, n_train=60, n_test=40).setup()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.data())
def test_every_set_shows_every_label_or_is_refused(counts: list[int], data: st.DataObject) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    total = len(y)
    n_test = data.draw(st.integers(1, total - 1))
    n_train = data.draw(st.integers(1, total - n_test))
    rows = [(torch.tensor([float(i), 1.0]), int(label)) for i, label in enumerate(y)]
    made = FromDataset(rows, labels="multiclass", n_train=n_train, n_test=n_test, **PLAIN)  # type: ignore[arg-type]
    try:
        made.setup()
    except (DataError, UserWarning):
        return
    for split, size in ((made.train, n_train), (made.test, n_test)):
        assert len(split.y.unique()) == min(size, len(counts)) or len(split.y.unique()) == len(counts)


# ---------------------------------------------------------------------- regression


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_real_valued_targets_of_an_array_file(tmp_path: Path, columns: int) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(20, 4)), generator.normal(size=(20, columns) if columns else 20)
    data = ArrayFile(saved(tmp_path / "r.npz", x=x, y=y.astype(np.float32)), **REGRESSION)
    data.setup()
    assert (data.task, data.num_outputs) == ("regression", max(columns, 1))
    expected = torch.from_numpy(y.astype(np.float32)).double()
    expected = expected.squeeze(1) if columns == 1 else expected
    assert torch.equal(data.train.y, expected[data.train.index])
    assert len(set(data.train.index.tolist()) & set(data.test.index.tolist())) == 0
    with pytest.raises(DataError, match=r"labels is 'parity', which needs classes, .* set labels: regression"):
        ArrayFile(data.path, n_train=12, n_test=6).setup()


def test_targets_are_standardised_by_the_training_set(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    y = generator.normal(size=(20, 2)) * 7 + 3
    path = saved(tmp_path / "r.npz", x=generator.normal(size=(20, 4)), y=y)
    data = ArrayFile(path, standardise_targets=True, **REGRESSION)
    data.setup()
    torch.testing.assert_close(data.train.y.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(data.train.y.std(0, correction=0), torch.ones(2, dtype=torch.float64))
    raw = torch.from_numpy(y)
    train = raw[data.train.index]
    expected = (raw[data.test.index] - train.mean(0)) / train.std(0, correction=0)
    torch.testing.assert_close(data.test.y, expected)
    with pytest.raises(ConfigError, match="scales the targets of a regression, but labels is 'parity'"):
        ArrayFile(path, n_train=2, n_test=2, standardise_targets=True)


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_tables(tmp_path: Path, end: str) -> None:
    generator = np.random.default_rng(3)
    numbers = generator.normal(size=(30, 3))
    table = pd.DataFrame({"a": numbers[:, 0], "b": np.arange(30), "price": numbers[:, 1], "size": numbers[:, 2]})
    table["kind"] = ["cat", "dog", "eel"] * 10
    path = tmp_path / f"table{end}"
    table.to_csv(path, index=False) if end == ".csv" else table.to_parquet(path, index=False)
    data = TableFile(str(path), targets=["price", "size"], features=["b", "a"], **REGRESSION)
    data.setup()
    rows = data.train.index.numpy()
    np.testing.assert_array_equal(data.train.x.numpy(), table[["b", "a"]].to_numpy(float)[rows])
    np.testing.assert_array_equal(data.train.y.numpy(), table[["price", "size"]].to_numpy()[rows])
    options: dict[str, Any] = {"features": ["a", "b"], "n_train": 12, "n_test": 6}
    named = TableFile(str(path), targets="kind", labels=["dog", "cat"], **options)
    named.setup()
    kinds = table["kind"].to_numpy()[named.train.index.numpy()]
    assert np.array_equal(named.train.y.numpy(), np.where(kinds == "dog", 1.0, -1.0))
    for wrong, message in (
        ({"targets": "prise"}, r"targets names \['prise'\], but .* has the columns a, b, price"),
        ({"targets": "price", "features": None}, r"columns \['kind'\] of .* are not numeric"),
        ({"targets": "price", "features": ["a"], "labels": "parity"}, "needs classes, but the targets are real"),
    ):
        with pytest.raises(DataError, match=message):
            TableFile(str(path), **({**REGRESSION, "features": ["a"]} | wrong)).setup()
    with pytest.raises(ConfigError, match=r"names 2 columns .* needs one"):
        TableFile(str(path), targets=["a", "b"], n_train=2, n_test=2)
    with pytest.raises(ConfigError, match=r"expected a \.csv or \.parquet file"):
        TableFile("x.xlsx", targets="y", n_train=2, n_test=2)
    with pytest.raises(ConfigError, match=r"a table, but ArrayFile reads \.npz files: set data to TableFile"):
        ArrayFile(str(path), n_train=2, n_test=2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "there is no file"),
        ("empty.csv", b"", "cannot be read as a table"),
        ("rows.csv", b"a,y\n", "has no rows"),
        ("hole.csv", b"a,y\n1,2\n,3\n", r"columns \['a'\] of .* have missing values"),
        ("inf.csv", b"a,y\n1,2\ninf,3\n", "not finite"),
        ("ragged.csv", b"a,y\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        ("bytes.csv", b"\xff\xfe\x00\x01", "cannot be read as a table"),
        ("broken.parquet", b"PAR1 nothing PAR1", "cannot be read as a table"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        TableFile(str(path), targets="y", **{**REGRESSION, "n_train": 1, "n_test": 1}).setup()


# ---------------------------------------------------------------------- datasets and datamodules


class Squares(Dataset[Any]):
    """x in {0, ..., 29} as numpy bytes, its square root as a float."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> Any:
        return np.full((2, 2), i, np.uint8), float(i) ** 0.5


class Halves(pl.LightningDataModule):
    """Two classes, 5 and 9, with a validation loader."""

    def setup(self, stage: str) -> None:
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        self.sets = TensorDataset(x, 5 + 4 * (x[:, 0] > 0).long())

    def train_dataloader(self) -> Any:
        return DataLoader(torch.utils.data.Subset(self.sets, range(20)), batch_size=6)

    def val_dataloader(self) -> Any:
        return DataLoader(torch.utils.data.Subset(self.sets, range(20, 30)), batch_size=6)

    def test_dataloader(self) -> Any:
        return DataLoader(torch.utils.data.Subset(self.sets, range(30, 40)), batch_size=6)


def test_a_dataset_of_arrays_and_numbers() -> None:
    data = FromDataset(Squares(), **REGRESSION)
    data.setup()
    torch.testing.assert_close(data.train.y, data.train.index.double().sqrt())
    torch.testing.assert_close(data.train.x, (data.train.index.double() / 255).view(-1, 1, 1).expand(-1, 2, 2))


def test_the_loaders_of_a_datamodule() -> None:
    own = Halves()
    data = FromDataModule(own, labels=[9, 5])
    data.setup()
    assert [len(part.y) for part in (data.train, data.val, data.test, data.kernel)] == [20, 10, 10, 0]
    x, y = own.sets.tensors
    assert torch.equal(data.val.x, x[20:30].double())
    assert torch.equal(data.test.y, torch.where(y[30:] == 9, 1.0, -1.0).double())


class NoLength(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


class NoTest(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(2, 2), torch.arange(2)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FromDataset(NoLength(), **REGRESSION), "without a length"),
        (lambda: FromDataset([(torch.ones(2), 0), (torch.ones(3), 1)], **REGRESSION), "differ in shape"),  # type: ignore[arg-type]
        (lambda: FromDataset([({}, 0)], **REGRESSION), r"expected numbers: convert images"),  # type: ignore[arg-type]
        (lambda: FromDataset([torch.ones(3)], **REGRESSION), r"expected pairs \(input, target\)"),  # type: ignore[arg-type]
        (lambda: FromDataset([], **REGRESSION), "holds no samples"),  # type: ignore[arg-type]
        (lambda: FromDataset([(torch.ones(2) * 1j, 0)], **REGRESSION), "complex numbers"),  # type: ignore[arg-type]
        (lambda: FromDataset([(torch.ones(2), torch.nan)], **REGRESSION), "not finite"),  # type: ignore[arg-type]
        (lambda: FromDataset([(1.0, 0)], **REGRESSION), r"expected \(n, \.\.\.\)"),  # type: ignore[arg-type]
        (lambda: FromDataModule(NoTest()), r"NoTest has no test_dataloader\(\)"),
        (lambda: FromDataModule(Digits(5, 5)), "needs no FromDataModule"),
    ],
)
def test_what_is_no_data_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(LazyLightningError, match=message):
        build().setup()


# ---------------------------------------------------------------------- validation set


@given(st.integers(0, 20), st.integers(0, 3))
@settings(max_examples=10)
def test_a_validation_set_changes_no_other_set(n_val: int, seed: int) -> None:
    plain, more = Digits(40, 30, n_kernel=5), Digits(40, 30, n_kernel=5, n_val=n_val, val_seed=seed)
    plain.setup()
    more.setup()
    for name in ("train", "test", "kernel"):
        assert torch.equal(getattr(plain, name).index, getattr(more, name).index)
    others = torch.cat([more.train.index, more.test.index, more.kernel.index])
    assert len(more.val.y) == n_val
    assert not torch.isin(more.val.index, others).any()


def test_validating_without_a_validation_set_is_refused() -> None:
    data = Stripe(d=2, n_train=20, n_test=10)
    data.setup()
    with pytest.raises(ConfigError, match=r"set data\.n_val .* by the subcommand test"):
        data.val_dataloader()


# ---------------------------------------------------------------------- damaged archives


def header(shape: str, descr: str = "<f8", magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return magic + struct.pack("<H", len(text)) + text


def archive(x: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """An npz whose entry x.npy has these bytes."""
    held, y = io.BytesIO(), io.BytesIO()
    np.save(y, np.arange(4) % 2)
    with zipfile.ZipFile(held, "w", method) as made:
        made.writestr("x.npy", x)
        made.writestr("y.npy", y.getvalue())
    return held.getvalue()


def whole(method: int = zipfile.ZIP_STORED) -> bytearray:
    x = io.BytesIO()
    np.save(x, np.random.default_rng(0).normal(size=(4, 300)))
    return bytearray(archive(x.getvalue(), method))


def flipped(method: int) -> bytes:
    content = whole(method)
    content[1500] ^= 0x10
    return bytes(content)


def flagged(offset: int, value: bytes) -> bytes:
    """One field of the entry x.npy overwritten, in its own header and in the central directory."""
    content = whole()
    central = content.index(b"PK\x01\x02")
    for start in (offset, central + 2 + offset):
        content[start : start + len(value)] = value
    return bytes(content)


DAMAGED = {
    "truncated": bytes(whole()[:5000]),
    "truncated header": archive(header("(4, 2)")[:20]),
    "wrong magic": archive(header("(4, 2)", magic=b"\x93NUMPX\x01\x00") + bytes(64)),
    "unknown version": archive(header("(4, 2)", magic=b"\x93NUMPY\x09\x00") + bytes(64)),
    "empty entry": archive(b""),
    "header is no literal": archive(header("__import__('os').abort()") + bytes(64)),
    "deep header": archive(header("(" * 3000 + ")" * 3000) + bytes(64)),
    "encrypted": flagged(6, b"\x01\x00"),
    "unknown compression": flagged(8, b"\x63\x00"),
    "bit flip in stored": flipped(zipfile.ZIP_STORED),
    "bit flip in deflate": flipped(zipfile.ZIP_DEFLATED),
    "bit flip in lzma": flipped(zipfile.ZIP_LZMA),
    "bit flip in bzip2": flipped(zipfile.ZIP_BZIP2),
    "10^12 numbers": archive(header("(4, 250000000000)") + bytes(64)),
    "2^64 numbers": archive(header("(4, 4611686018427387904)") + bytes(64)),
    "negative shape": archive(header("(4, -2)") + bytes(64)),
    "no rows": archive(header("(0, 2)")),
    "no columns": archive(header("(4, 0)")),
    "more bytes than announced": archive(header("(4, 2)") + bytes(65)),
    "objects": archive(header("(4, 2)", descr="|O") + b"cos\nabort\n(tR."),
    "texts": archive(header("(4, 2)", descr="<U1") + bytes(32)),
    "complex": archive(header("(4, 2)", descr="<c16") + bytes(128)),
    "infinite": archive(header("(4, 1)") + struct.pack("<4d", 1, 2, np.inf, 3)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_archives_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with pytest.raises(LazyLightningError) as error:
        read_npz(path)
    assert str(path) in str(error.value)


@given(st.data())
@settings(max_examples=60)
def test_no_change_of_bytes_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes of a whole archive are changed or cut off: it is refused, or reads as it would have."""
    method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    content = whole(method)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    path.write_bytes(content)
    try:
        pool = read_npz(path)
    except LazyLightningError:
        return
    assert pool.x.shape[0] == 4


# ---------------------------------------------------------------------- whole runs


@pytest.mark.usefixtures("own_folder", "no_figures")
def test_a_regression_on_a_table_from_the_command_line() -> None:
    generator = np.random.default_rng(5)
    table = pd.DataFrame(generator.normal(size=(60, 3)), columns=["a", "b", "c"])
    table["y"], table["z"] = np.sin(table["a"]) + table["b"], table["c"] ** 2
    table.to_csv("own.csv", index=False)
    config = {
        "model": {
            "class_path": "FlowModule",
            "init_args": {
                "network": {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": 8, "depth": 1}},
                "loss": "mse",
                "alpha": [0.1, 100.0],
                "stop": {"max_steps": 30},
            },
        },
        "data": {
            "class_path": "TableFile",
            "init_args": {
                "path": "own.csv",
                "targets": ["y", "z"],
                "labels": "regression",
                "standardise_targets": True,
                "n_train": 30,
                "n_test": 20,
                "n_val": 10,
            },
        },
    }
    Path("own.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "own.yaml", "--trainer.accelerator", "cpu"]) == 0
    run = Path("runs/flow/version_0")
    for member in json.loads((run / "summary.json").read_text())["members"]:
        assert 0 < member["train/loss"] < 0.95  # two standardised targets: ell = |y|^2 / 2 has mean 1 at F = 0
        assert np.isfinite(member["test/loss"])
        assert np.isfinite(member["val/loss"])
    assert main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoint.ckpt")]) == 0


@pytest.mark.usefixtures("own_folder")
def test_a_plain_datamodule_is_told_how_it_is_used() -> None:
    module = FlowModule(functools.partial(FC, width=4, depth=1), stop=StoppingCriteria(max_steps=2))
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=-1, accelerator="cpu", precision="64-true", enable_progress_bar=False, **options)
    with pytest.raises(ConfigError, match=r"given a Halves, .* datamodule=FromDataModule"):
        trainer.fit(module, datamodule=Halves())
    trainer = pl.Trainer(max_epochs=-1, accelerator="cpu", precision="64-true", enable_progress_bar=False, **options)
    module = FlowModule(functools.partial(FC, width=4, depth=1), stop=StoppingCriteria(max_steps=2))
    trainer.fit(module, datamodule=FromDataModule(Halves(), labels=[5, 9]))
    x = np.arange(6).reshape(2, 3)
    expected = module(torch.from_numpy(x).double())
    for given_as in (x, x.tolist(), torch.from_numpy(x.astype(np.uint8))):
        assert torch.equal(module(given_as), expected)


def test_an_idx_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_LARGEST", 1000)
    path = tmp_path / "bomb-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(DataError, match="unpacks to more than 1000 bytes"):
        idx.read_idx(path)
    plain = tmp_path / "deep"
    plain.write_bytes(bytes((0, 0, 8, 200)) + struct.pack(">200I", *[1] * 200) + b"\x00")
    with pytest.raises(DataError, match="announces 200 dimensions"):
        idx.read_idx(plain)
