"""Malformed files in the folder of a run, beside a sound run: read by ``load_runs``, ``runs`` and ``report``."""

from __future__ import annotations

import functools
import io
import itertools
import json
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from configurations import bomb
from damage import change, damaged, places
from made_runs import made_sweep
from pickles import pickles
from safetensors.numpy import load, save
from tiny_run import sound_run
from trial import ANY, Answer, Trial, WrongAnswerError, sentence, told

from lazy_lightning.runs.run_files import CHECKPOINT, CONFIG, CURVES, FAILURE, KERNELS, OUTPUTS, SUMMARY

_RUN = "version_1"
_FILES = (SUMMARY, CONFIG, CURVES, OUTPUTS, KERNELS, FAILURE, "index.json")


def trials(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """``count`` of them, the same for the same seed.

    Args:
        folder: an empty one, for the store.
        count: how many.
        seed: of the generator.
    """
    if count == 0:
        return
    from lazy_lightning.runs import load_runs

    rng, sound = random.Random(seed), folder / "sound"
    made_sweep(sound, widths=(30, 100), scales=(1.0,), seeds=2, failed=[1])
    group = json.loads((sound_run(folder / "real", 2) / SUMMARY).read_text())["groups"][0]
    for run in ("version_0", _RUN):
        summary = json.loads((sound / run / SUMMARY).read_text())
        alpha = summary["members"][0]["alpha"]
        (sound / run / SUMMARY).write_text(json.dumps({**summary, "groups": [{**group, "alpha": alpha}]}))
    (sound / _RUN / FAILURE).write_text('{"schema": 1, "reason": "the loss was not finite"}')
    load_runs(sound)  # writes the index
    files = itertools.cycle(_FILES)
    for number in range(count):
        file = next(files)
        path = Path(file) if file == "index.json" else Path(_RUN) / file
        name, raw = _malformed((sound / path).read_bytes(), path, rng)
        act = functools.partial(_look, sound, folder / f"trial_{number}", path, raw)
        yield Trial(f"store, {file}", name, act, ANY)


# ---------------------------------------------------------------------- using them


def _look(sound: Path, folder: Path, path: Path, raw: bytes) -> Answer:
    from lazy_lightning.report import write_report
    from lazy_lightning.runs import load_runs
    from lazy_lightning.runs.load import without_damaged_arrays

    store, victim = folder / "store", folder / "victim"
    try:
        shutil.copytree(sound, store)
        shutil.copytree(sound / "version_0", victim)
        (victim / CHECKPOINT).write_text("weights")
        (store / path).write_bytes(raw)
        said: list[str] = []
        table = load_runs(store, on_damaged=said.append)
        readable = without_damaged_arrays(table, said.append)
        _require_well_formed(table, readable)
        write_report(readable, folder / "report", figures={}, tensorboard=False)
        commands = (
            ["runs", "list", str(store)],
            ["runs", "show", str(store / _RUN)],
            ["runs", "show", str(store / "version_0")],
            ["runs", "export", str(store), "--out", str(folder / "a.csv")],
            ["runs", "export", str(store), "--curves", "--out", str(folder / "a.parquet")],
        )
        for command in commands:
            done, lines = told(command)
            said += lines
            if not done and command[-1] != str(store / _RUN):
                raise WrongAnswerError(f"{command[:2]} ended without the sound run: {lines}")
        if not (victim / CHECKPOINT).is_file():
            raise WrongAnswerError("a file outside of the store was removed")
        for line in said:
            sentence(line)
        if said:
            return Answer.REFUSED
        load_runs(sound)
        return Answer.SAME if (store / path).read_bytes() == (sound / path).read_bytes() else Answer.OTHER
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_well_formed(table: pd.DataFrame, readable: pd.DataFrame) -> None:
    if not {"version_0"} <= set(readable["run"]) or not set(table["run"]) <= {"version_0", _RUN}:
        raise WrongAnswerError(
            f"the runs are {sorted(set(map(str, table['run'])))}, readable {sorted(set(readable['run']))}"
        )
    for name in ("alpha", "seed", "member", "h"):
        if not pd.api.types.is_numeric_dtype(table[name]) or (name != "h" and not np.isfinite(table[name]).all()):
            raise WrongAnswerError(f"{name} is {table[name].tolist()}")
    if not (table["alpha"] > 0).all() or not (table["seed"] >= 0).all() or not (table["member"] >= 0).all():
        raise WrongAnswerError(f"members are {table[['member', 'alpha', 'seed']].values.tolist()}")
    if not set(table["status"]) <= {"finished", "failed", "unfinished"}:
        raise WrongAnswerError(f"status is {table['status'].tolist()}")


# ---------------------------------------------------------------------- what is made of them


def _malformed(raw: bytes, path: Path, rng: random.Random) -> tuple[str, bytes]:
    way = rng.random()
    if way < 0.35:
        name, made = damaged(raw, rng)
        return f"{name} {rng.randrange(10**6)}", made
    if way < 0.4:
        return pickles(rng)
    if path.suffix in (".json", ".yaml"):
        return _changed_text(raw, path.suffix, rng)
    return _changed_table(raw, rng) if path.suffix == ".parquet" else _changed_arrays(raw, rng)


def _changed_text(raw: bytes, suffix: str, rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.1:
        texts = {
            "nested": "[" * 10_000,
            "objects": '{"a":' * 10_000,
            "large number": '{"schema": 1' + "0" * 5000 + "}",
            "python": "model: !!python/object/apply:os.mkdir [touched]",
            "bomb": bomb("[{}]"),
            "numbers": "[NaN, Infinity, -Infinity]",
            "surrogate": '{"schema": 1, "model": "\\ud800", "members": []}',
        }  # fmt: skip
        name = rng.choice(list(texts))
        return name, texts[name].encode()
    content = json.loads(raw) if suffix == ".json" else yaml.safe_load(raw)
    done = []
    for _ in range(rng.choice((1, 1, 2))):
        found = places(content)
        shallow = [place for place in found if len(place) <= rng.choice((1, 2, 3, 9))] or found
        if shallow:
            done.append(change(content, rng.choice(shallow), rng))
    dump: Any = json.dumps if suffix == ".json" else yaml.safe_dump
    return "; ".join(done), dump(content).encode()


def _changed_table(raw: bytes, rng: random.Random) -> tuple[str, bytes]:
    table = pd.read_parquet(io.BytesIO(raw))
    name = rng.choice(("observation", "member", "t", rng.choice(list(table.columns))))
    ways: dict[str, Any] = {
        "missing": lambda: table.drop(columns=name),
        "texts": lambda: table.assign(**{name: "text"}),
        "lists": lambda: table.assign(**{name: [[1.0]] * len(table)}),
        "dates": lambda: table.assign(**{name: pd.Timestamp(0)}),
        "bytes": lambda: table.assign(**{name: pickle.dumps(0)}),
        "null": lambda: table.assign(**{name: None}),
        "NaN": lambda: table.assign(**{name: np.nan}),
        "negative": lambda: table.assign(**{name: -7}),
        "large": lambda: table.assign(**{name: 2**62}),
        "truth": lambda: table.assign(**{name: True}),
        "renamed": lambda: table.rename(columns={name: "=cmd|' /C calc'!A0"}),
        "no rows": lambda: table[:0],
        "no columns": lambda: table[[]],
    }
    way = rng.choice(list(ways))
    file = io.BytesIO()
    ways[way]().to_parquet(file)
    return f"{name} {way}", file.getvalue()


def _changed_arrays(raw: bytes, rng: random.Random) -> tuple[str, bytes]:
    arrays = load(raw)
    name = rng.choice(list(arrays))
    array = arrays[name]
    ways: dict[str, Any] = {
        "missing": None,
        "empty": array[:0],
        "one more axis": array[None],
        "flat": array.reshape(-1),
        "a number": np.float64(1.0),
        "integers": array.astype(np.int64),
        "truth": array.astype(bool),
        "NaN": array * np.nan,
        "half": array.astype(np.float16),
        "negative": -array - 7,
        "longer": np.concatenate([array, array]),
    }
    way = rng.choice(list(ways))
    if way == "missing":
        del arrays[name]
    else:
        arrays[name] = np.ascontiguousarray(ways[way])
    if rng.random() < 0.2:
        file = io.BytesIO()
        torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, file)
        return "a file of torch", file.getvalue()
    return f"{name} {way}", save(arrays)
