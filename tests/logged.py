"""What loggers hold after a fit, read back as points: the value of (column, alpha, step); alpha None is all members."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fits import digits, module
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lazy_lightning.callbacks import Curves
from lazy_lightning.callbacks.scalars import AGAINST_T, FOLDER
from lazy_lightning.modules import StoppingCriteria

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=20)}

Points = dict[tuple[str, float | None, int], float]


class Recorded(Logger):
    """A logger that keeps its calls."""

    name, version, experiment = "recorded", 0, None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def trained(loggers: Any, *callbacks: Callback, model=None, data=None, epochs: int = -1, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", precision="64-true", max_epochs=epochs, logger=loggers, callbacks=[Curves(), *callbacks],
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, **options,
    )  # fmt: skip
    trainer.fit(model or module(**SHORT), datamodule=data or digits())
    return trainer


def points_of_rows(rows: Iterable[tuple[int | None, Mapping[str, float]]]) -> Points:
    """The points of a logger's calls, or of a table with a row for each step."""
    points: Points = {}
    for step, metrics in rows:
        assert step is not None
        for name, value in metrics.items():
            column, _, alpha = name.partition("/alpha=")
            point = (column, float(alpha) if alpha else None, step)
            assert point not in points, point
            points[point] = value
    return points


def points_of_csv(file: Path) -> Points:
    """The cells of a ``metrics.csv`` that hold a number."""
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    return points_of_rows(
        (int(row.pop("step")), {name: float(value) for name, value in row.items() if value}) for row in rows
    )


def scalars_of(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """The scalars of one TensorBoard run, without those against t, whose step is no count of observations."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(AGAINST_T)]
    return [(event.step, {tag: event.value}) for tag in tags for event in events.Scalars(tag)]


def points_of_tensorboard(folder: Path) -> Points:
    """The points of the TensorBoard runs ``tb/alpha=A`` in a run's folder, by tag."""
    points: Points = {}
    for run in (folder / FOLDER).iterdir():
        alpha = float(run.name.removeprefix("alpha="))
        points |= {(tag, alpha, step): value for (tag, _, step), value in points_of_rows(scalars_of(run)).items()}
    return points


def rows_of_wandb(file: Path) -> list[tuple[int | None, dict[str, float]]]:
    """The history in the file of an offline run of W&B, without the columns that W&B adds."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for data in records_of_wandb(file.read_bytes()):
        items = Record.FromString(data).history.item
        history = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
        if history:
            step = history.pop("trainer/global_step")
            rows.append((step, {name: value for name, value in history.items() if not name.startswith("_")}))
    return rows


def records_of_wandb(content: bytes) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: seven bytes, then the log format of LevelDB, blocks of 32 KiB of parts."""
    at, record = 7, b""
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:  # too short for the header of a part
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def of_alphas(points: Points) -> Points:
    """The points of single alphas."""
    return {point: value for point, value in points.items() if point[1] is not None}
