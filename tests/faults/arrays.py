"""Malformed files of data: .npz archives, tables and idx files."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from damage import damaged
from pickles import pickles
from trial import ANY, REFUSED, SOUND, Answer, Trial, WrongAnswerError, sentence, told

_SAMPLES = 24
_OPTIONS: dict[str, Any] = {"n_train": 12, "n_test": 6, "centre": False, "sphere": False}


def trials(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """``count`` of them, the same for the same seed.

    Args:
        folder: an empty one, for the files.
        count: how many.
        seed: of the generator.
    """
    rng, sound = random.Random(seed), _sound()
    if count and _fit(folder / "own.npz", sound["npz"]) is Answer.REFUSED:
        raise RuntimeError("the sound data of the campaign are refused")
    kinds = itertools.cycle([*sound, "crafted.npz", "crafted.csv", "main.npz"])
    for _ in range(count):
        kind = next(kinds)
        if kind == "crafted.npz":
            name, raw = _crafted_npz(rng)
            yield Trial("npz", name, _use(folder / "own.npz", raw, sound["npz"]), REFUSED)
        elif kind == "main.npz":  # the same by the command line
            name, raw = _crafted_npz(rng)
            yield Trial("npz of a fit", name, functools.partial(_fit, folder / "own.npz", raw), REFUSED)
        elif kind == "crafted.csv":
            name, raw = _crafted_csv(rng)
            yield Trial("csv", name, _use(folder / "own.csv", raw, sound["csv"]), REFUSED)
        else:
            name, raw = damaged(sound[kind], rng)
            has_checksum = kind in ("npz", "npz.deflated", "idx.gz")
            suffix = kind.partition(".")[0] if kind != "idx.gz" else kind
            yield Trial(kind, name, _use(folder / f"own.{suffix}", raw, sound[kind]), SOUND if has_checksum else ANY)


def _numbers() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(_SAMPLES, 3)), np.arange(_SAMPLES) % 2


def _npz(compress: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, **arrays)
    return file.getvalue()


def _sound() -> dict[str, bytes]:
    x, y = _numbers()
    table = pd.DataFrame({**{f"x{i}": x[:, i] for i in range(3)}, "y": y})
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False)
    idx = bytes((0, 0, 8, 3)) + struct.pack(">3I", 4, 5, 5) + bytes(range(100))
    return {
        "npz": _npz(x=x, y=y),
        "npz.deflated": _npz(compress=True, x=x, y=y),
        "csv": table.to_csv(index=False).encode(),
        "parquet": parquet.getvalue(),
        "idx": idx,
        "idx.gz": gzip.compress(idx, mtime=0),
    }


# ---------------------------------------------------------------------- using them


def _use(path: Path, raw: bytes, sound: bytes) -> Callable[[], Answer]:
    return functools.partial(_read, path, raw, sound)


def _read(path: Path, raw: bytes, sound: bytes) -> Answer:
    from lazy_lightning.errors import LazyLightningError

    path.write_bytes(sound)
    expected = _content(path)
    path.write_bytes(raw)
    try:
        got = _content(path)
    except LazyLightningError as error:
        sentence(str(error))
        return Answer.REFUSED
    if any(not bool(torch.isfinite(part.double()).all()) or part.numel() == 0 for part in got):
        raise WrongAnswerError("accepted with numbers that are not finite, or with none")
    same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    return Answer.SAME if same else Answer.OTHER


def _content(path: Path) -> tuple[torch.Tensor, ...]:
    from lazy_lightning.data import ArrayFile, TableFile
    from lazy_lightning.data.idx import read_idx

    if ".idx" in path.name:
        return (read_idx(path),)
    data = ArrayFile(str(path), **_OPTIONS) if path.suffix == ".npz" else TableFile(str(path), "y", **_OPTIONS)
    data.setup()
    return data.train.x, data.train.y, data.test.x, data.test.y


def _fit(path: Path, raw: bytes) -> Answer:
    from command_line import QUIET

    path.write_bytes(raw)
    data = f"{{class_path: lazy_lightning.data.ArrayFile, init_args: {{path: '{path}', n_train: 12, n_test: 6}}}}"
    done, _ = told([*QUIET, f"--data={data}", "--model.stop.max_steps=1"])
    return Answer.OTHER if done else Answer.REFUSED


# ---------------------------------------------------------------------- files that were never right


def _header(shape: str, dtype: str = "'<f8'", more: str = "", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}{more}}}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


def _archive(x: bytes, y: bytes | None, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("x.npy", x)
        if y is not None:
            archive.writestr("y.npy", y)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _crafted_npz(rng: random.Random) -> tuple[str, bytes]:
    x, y = _numbers()
    body, labels = x.tobytes(), _npy(y)
    kind = rng.choice(("arrays", "header", "pickle", "member", "archive"))
    if kind == "arrays":
        spoilt = x.copy()
        spoilt[rng.randrange(_SAMPLES), rng.randrange(3)] = rng.choice((np.nan, np.inf, -np.inf))
        arrays: dict[str, dict[str, Any]] = {
            "not finite": {"x": spoilt, "y": y},
            "no y": {"x": x},
            "no x": {"y": y, "X": x},
            "nothing": {},
            "fewer y": {"x": x, "y": y[: -rng.randint(1, 20)]},
            "no samples": {"x": x[:0], "y": y[:0]},
            "no inputs": {"x": x[:, :0], "y": y},
            "x of one axis": {"x": x[:, 0], "y": y},
            "x a number": {"x": np.float64(3), "y": y},
            "y a number": {"x": x, "y": np.int64(1)},
            "complex": {"x": x + 1j, "y": y},
            "texts": {"x": x.astype(str), "y": y},
            "dates": {"x": x.astype("M8[s]"), "y": y},
            "records": {"x": np.zeros(_SAMPLES, dtype=[("a", float)]), "y": y},
            "texts as classes": {"x": x, "y": y.astype(str)},
            "y of three axes": {"x": x, "y": y[:, None, None]},
            "one class": {"x": x, "y": y * 0},
            "few samples": {"x": x[:17], "y": y[:17]},
            "too large a class": {"x": x, "y": y.astype(np.uint64) + np.uint64(2**63)},
        }
        name = rng.choice(list(arrays))
        return f"{name} {rng.randrange(1000)}", _npz(compress=rng.random() < 0.5, **arrays[name])
    if kind == "header":
        shapes = (
            "(1000000000000,)",
            "(18446744073709551616, 3)",
            "(-24, 3)",
            "(24, -3)",
            "(24, 3, 0)",
            "(24.0, 3)",
            "24",
        )
        more = ("()", "None", "(True, 3)", "(24, 3", "__import__('os').mkdir('touched')", "(24, 4)", "('a',)")
        shape = rng.choice((*shapes, *more))
        dtype = rng.choice(("'<f8'", "'|O'", "'<f99'", "'<U1000000000'", "'V0'", "3", "[('a', '<f8'), ('a', '<f8')]"))
        made = _header(
            shape, dtype, rng.choice(("", ", 'more': 1")), rng.choice((b"\x01\x00", b"\x09\x09", b"\x03\x00"))
        )
        return f"header {made[10:].strip().decode()} {made[6:8]!r}", _archive(made + body, labels)
    if kind == "pickle":
        name, raw = pickles(rng)
        if rng.random() < 0.5:
            return f"object array of {name}", _archive(_header("(24, 3)", "'|O'") + raw, labels)
        return f"bare {name}", rng.choice((raw, _archive(raw, labels), _archive(_npy(x), raw)))
    if kind == "member":
        whole = _npy(x)
        parts = {
            "empty x": _archive(b"", labels),
            "empty y": _archive(whole, b""),
            "x cut": _archive(whole[: rng.randrange(len(whole) - 1)], labels),
            "wrong magic": _archive(b"\x93NUMPX" + whole[6:], labels),
            "text": _archive(b"1 2 3\n", labels),
            "followed by bytes": _archive(whole + rng.randbytes(9), labels),
            "header without end": _archive(whole[:8] + b"\xff\xff" + whole[10:], labels),
        }
        name = rng.choice(list(parts))
        return f"{name} {rng.randrange(1000)}", parts[name]
    raw = bytearray(_archive(_npy(x), labels))
    central = raw.rindex(b"PK\x01\x02")
    name = rng.choice(("compression", "encrypted", "huge", "version"))
    for begin, shift in ((central, 2), (raw.index(b"PK\x03\x04", 10), 0)):
        at = begin + shift
        if name == "compression":
            raw[at + 8 : at + 10] = struct.pack("<H", rng.choice((1, 7, 14, 97, 99)))
        elif name == "encrypted":
            raw[at + 6] |= 1
        elif name == "huge":
            raw[at + 18 : at + 26] = struct.pack("<2I", 2**31 + rng.randrange(99), 2**32 - 2)
        else:
            raw[at + 4] = 200
            raw[at + 8] = 14
    return f"{name} {rng.randrange(1000)}", bytes(raw)


def _crafted_csv(rng: random.Random) -> tuple[str, bytes]:
    x, y = _numbers()
    table = pd.DataFrame({**{f"x{i}": x[:, i] for i in range(3)}, "y": y})
    lines = table.to_csv(index=False).splitlines()
    row = rng.randrange(1, len(lines))
    cells = lines[row].split(",")
    column = rng.randrange(3)
    cells[column] = rng.choice(("", "nan", "inf", "abc", "1e999", "0x1p3", "=cmd|' /C calc'!A0", "True", '"', "1;2"))
    ways = {
        f"x{column} of row {row} is {cells[column]!r}": [*lines[:row], ",".join(cells), *lines[row + 1 :]],
        "no header": lines[1:],
        "header alone": lines[:1],
        "no y": [line.rpartition(",")[0] for line in lines],
        "no x": [line.rpartition(",")[2] for line in lines],
        f"row {row} longer": [*lines[:row], lines[row] + ",1,2", *lines[row + 1 :]],
        "semicolons": [line.replace(",", ";") for line in lines],
        f"{row} rows": lines[: min(row, 17)],
        "NUL": ["\0" * 50],
        "one class": [line.rpartition(",")[0] + (",y" if i == 0 else ",1") for i, line in enumerate(lines)],
        f"y of row {row} missing": [*lines[:row], lines[row].rpartition(",")[0] + ",", *lines[row + 1 :]],
    }
    name = rng.choice(list(ways))
    return name, "\n".join(ways[name]).encode()
