"""Malformed checkpoints: of one tiny run, that every trial goes on with by the command line."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from damage import change, damaged, places
from pickles import calling, pickles
from tiny_run import fit, sound_run
from trial import REFUSED, SOUND, Answer, Trial

from lazy_lightning.runs.run_files import CHECKPOINT, CURVES, OUTPUTS

_VALUES = (
    None,
    True,
    -1,
    -(2**70),
    float("nan"),
    "text",
    [],
    [1, [2]],
    {},
    {"a": {"b": 1}},
    torch.zeros(3),
    torch.tensor(-1.0),
)


def trials(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """``count`` of them, the same for the same seed.

    Args:
        folder: an empty one, for the run and the files.
        count: how many.
        seed: of the generator.
    """
    if count == 0:
        return
    rng = random.Random(seed)
    saved = sound_run(folder / "run", 6) / CHECKPOINT
    raw = saved.read_bytes()
    expected = _result(sound_run(folder / "whole", 9, saved))
    content = torch.load(saved, weights_only=True)
    kinds = itertools.cycle(("bytes", "state", "type", "member", "pickle", "state", "type"))
    for number in range(count):
        kind = next(kinds)
        name, made = _MAKE[kind](raw, content, rng)
        # An entry that nothing reads, or a part that torch does not need, changes nothing.
        allowed = REFUSED if kind in ("state", "pickle") else SOUND
        act = functools.partial(_go_on, folder / f"trial_{number}", made, expected)
        yield Trial(f"checkpoint, {kind}", name, act, allowed)


Result = tuple[bytes, pd.DataFrame]


def _result(run: Path) -> Result:
    return (run / OUTPUTS).read_bytes(), pd.read_parquet(run / CURVES).drop(columns="wall")


def _go_on(folder: Path, made: bytes, expected: Result) -> Answer:
    folder.mkdir()
    path = folder / "own.ckpt"
    path.write_bytes(made)
    try:
        done, _ = fit(folder / "run", 9, path)
        if not done:
            return Answer.REFUSED
        outputs, curves = _result(folder / "run" / "tiny" / "version_0")
        return Answer.SAME if outputs == expected[0] and curves.equals(expected[1]) else Answer.OTHER
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------------- what is made of it


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _bytes(raw: bytes, content: Any, rng: random.Random) -> tuple[str, bytes]:
    name, made = damaged(raw, rng)
    return f"{name} {rng.randrange(10**6)}", made


def _type(raw: bytes, content: Any, rng: random.Random) -> tuple[str, bytes]:
    """One entry removed or of another type; most places are in the states of callbacks, so the sections take turns."""
    own = copy.deepcopy(content)
    section = rng.choice(list(own))
    inside = [place for place in places(own) if place[0] == section]
    return change(own, rng.choice(inside), rng, _VALUES), _saved(own)


def _flow(content: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = next(iter(content["optimizer_states"][0]["state"].values()))
    return state


def _spoilt(tensor: torch.Tensor, number: float) -> torch.Tensor:
    own = tensor.clone()
    own.view(-1)[0] = number
    return own


def _state(raw: bytes, content: Any, rng: random.Random) -> tuple[str, bytes]:
    """What the flow cannot go on with."""
    own = copy.deepcopy(content)
    flow = _flow(own)
    flow["reason"] = torch.zeros_like(flow["reason"])  # all running
    tensors = [name for name, value in flow.items() if isinstance(value, torch.Tensor)]
    needed = [name for name in tensors if name not in ("gradient_scale", "milestone")]
    numbers = [name for name in ("displacement", "gradient", "velocity", "outputs", "loss", "t", "dt") if name in flow]
    ways: dict[str, Callable[[str, dict[str, Any]], Any]] = {
        "missing": lambda name, state: state.pop(name),
        "shorter": lambda name, state: state.update({name: state[name][..., :-1].clone()}),
        "of one more axis": lambda name, state: state.update({name: state[name][None]}),
        "a list": lambda name, state: state.update({name: state[name].tolist()}),
        "complex": lambda name, state: state.update({name: state[name].to(torch.complex128)}),
        "empty": lambda name, state: state.update({name: state[name][:0].clone()}),
        "a text": lambda name, state: state.update({name: "text"}),
        "none": lambda name, state: state.update({name: None}),
    }
    values = {"NaN": np.nan, "infinite": np.inf}
    if rng.random() < 0.3:
        name, word = rng.choice(numbers), rng.choice(list(values))
        flow[name] = _spoilt(flow[name], values[word])
    elif rng.random() < 0.3:
        name, number = rng.choice(
            (("dt", -1.0), ("dt", 0.0), ("t", -1.0), ("tried", -1), ("accepted", -1), ("accepted", 10**9),
            ("reason", 99), ("reason", -5), ("origin", 7.0)),
        )  # fmt: skip
        flow[name], word = _spoilt(flow[name], number), str(number)
    else:
        name, word = rng.choice(needed), rng.choice(list(ways))
        ways[word](name, flow)
    return f"the flow's {name} is {word}", _saved(own)


def _member(raw: bytes, content: Any, rng: random.Random) -> tuple[str, bytes]:
    """Files of the archive removed, exchanged, repeated or empty; each with a checksum that fits."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name, other = rng.sample(list(parts), 2)
    way = rng.choice(("removed", "exchanged", "empty", "cut", "renamed"))
    if way == "removed":
        del parts[name]
    elif way == "exchanged":
        parts[name], parts[other] = parts[other], parts[name]
    elif way == "empty":
        parts[name] = b""
    elif way == "cut":
        parts[name] = parts[name][: len(parts[name]) // 2]
    else:
        parts[f"../{name}"] = parts.pop(name)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for part, value in parts.items():
            archive.writestr(part, value)
    return f"{name} {way} ({other})", file.getvalue()


def _pickle(raw: bytes, content: Any, rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.3:
        return pickles(rng)
    name, thing = calling(rng)
    own = copy.deepcopy(content)
    section = rng.choice([key for key, value in own.items() if isinstance(value, dict)])
    own[section]["more"] = thing
    return f"{section} holds {name}", _saved(own)


_MAKE = {"bytes": _bytes, "state": _state, "type": _type, "member": _member, "pickle": _pickle}
