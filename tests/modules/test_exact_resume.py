"""A run killed any number of times ends as if undisturbed, wherever its checkpoints were saved.

A run is resumed from its checkpoint of each step. All checkpoints that it then saves are compared, entry by entry and
to the bit, with those of the undisturbed run: weights, momentum, schedules, curves, and the Trainer's own counts. As
each of them equals one of the undisturbed run, it does not matter how often a run is killed.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fits
import pytest
import torch
from fits import assert_same_curves
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from test_scaled_module import FULL, scaled, train
from torch import Tensor

from lazy_lightning.callbacks import GracefulStop, RunCheckpoint
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.runs.checkpoint_digest import DIGEST
from lazy_lightning.runs.run_files import CHECKPOINT

Run = Callable[..., Any]
"""Trains in a folder, with callbacks and from a checkpoint, and returns the table of its curves."""


class SaveAll(RunCheckpoint):
    """Saves ``N.ckpt`` after batch N, wherever a run may save, and nothing at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._pace.is_due = lambda: True  # type: ignore[method-assign]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The state within the run is compared alone."""

    def save(self, trainer: Any) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        trainer.save_checkpoint(Path(trainer.log_dir) / "all" / f"{done:03}.ckpt")


def entries(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a checkpoint by their paths, without times and what depends on them."""
    if not isinstance(node, Mapping | list | tuple):
        yield name, node
        return
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if key not in ("wall", DIGEST):
            yield from entries(value, f"{name}/{key}")


def equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other) or (one != one and other != other)
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def differences(one: Path, other: Path) -> list[str]:
    a, b = (dict(entries(torch.load(path, weights_only=True))) for path in (one, other))
    return sorted(set(a) ^ set(b)) + [name for name in set(a) & set(b) if not equal(a[name], b[name])]


def mini_batches(model: Mapping[str, Any], **options: Any) -> Run:
    def run(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None, **more: Any) -> Any:
        given = {"max_epochs": 3, **options, **more}
        return train(folder, scaled(**model), *callbacks, ckpt_path=ckpt_path, **given)[1]

    return run


def flow(**options: Any) -> Run:
    def run(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> Any:
        return fits.fit(folder, callbacks=callbacks, ckpt_path=ckpt_path, alpha=[0.1, 10.0], **options).table

    return run


ONE = {"alpha": 1.0, "seeds": 1}
ADAM = functools.partial(torch.optim.Adam, lr=0.01)
RUNS = {
    "schedule of epochs": mini_batches({**ONE, "lr_scheduler": FULL["lr_scheduler"]}),
    "schedule of epochs until a step": mini_batches({**ONE, "lr_scheduler": FULL["lr_scheduler"]}, max_steps=8),
    "companions and search": mini_batches(FULL, max_epochs=2),
    "Adam until a step": mini_batches({**ONE, "optimizer": ADAM}, max_steps=8, max_epochs=-1),
    "accumulated gradients": mini_batches(ONE, accumulate_grad_batches=2),
    "one batch an epoch": mini_batches(ONE, limit_train_batches=1, max_epochs=4),
    "momentum flow": flow(tau=0.5, stop=StoppingCriteria(max_steps=6)),
}


@pytest.mark.parametrize("case", RUNS)
def test_checkpoints_of_resumed_runs_equal_those_of_the_undisturbed_one(case: str, tmp_path: Path) -> None:
    run = RUNS[case]
    expected = run(tmp_path / "whole", SaveAll())
    saved = sorted((tmp_path / "whole" / "all").iterdir())
    assert len(saved) >= 4
    for i, checkpoint in enumerate(saved):
        folder = tmp_path / f"from_{checkpoint.stem}"
        assert_same_curves(run(folder, SaveAll(), ckpt_path=checkpoint), expected)
        for other in saved[i + 1 :]:
            assert differences(folder / "all" / other.name, other) == [], f"resumed from {checkpoint.stem}"


class SignalAt(Callback):
    """Sends SIGTERM in the middle of a batch."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_start(self, *args: Any) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
@pytest.mark.parametrize("case", ["schedule of epochs", "schedule of epochs until a step", "accumulated gradients"])
def test_stopped_twice_and_resumed(case: str, batches: int, tmp_path: Path) -> None:
    """By a signal in batch ``batches``, and by another one after so many batches of the resumed run."""
    run, checkpoint = RUNS[case], None
    expected = run(tmp_path / "whole")
    for i in range(2):
        run(tmp_path / str(i), GracefulStop(), SignalAt(batches), RunCheckpoint(), ckpt_path=checkpoint)
        checkpoint = tmp_path / str(i) / CHECKPOINT
    assert_same_curves(run(tmp_path / "end", ckpt_path=checkpoint), expected)


@pytest.mark.parametrize("case", ["schedule of epochs", "schedule of epochs until a step"])
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resumed_from_checkpoints_that_lightning_saves_after_an_epoch(case: str, tmp_path: Path) -> None:
    run = RUNS[case]
    expected = run(tmp_path / "whole", ModelCheckpoint(tmp_path / "saved", filename="{epoch}", save_top_k=-1))
    for epoch in range(2):
        again = ModelCheckpoint(tmp_path / f"again{epoch}", save_top_k=-1)
        table = run(tmp_path / str(epoch), again, ckpt_path=tmp_path / "saved" / f"epoch={epoch}.ckpt")
        assert_same_curves(table, expected)


@pytest.mark.parametrize("batch", [4, 9])
def test_a_checkpoint_that_lacks_a_begun_epoch_is_corrected(batch: int, tmp_path: Path) -> None:
    """As version 0.2.0 saved it after it had resumed from the last batch of an epoch."""
    run = RUNS["schedule of epochs"]
    expected = run(tmp_path / "whole", SaveAll())
    content = torch.load(tmp_path / "whole" / "all" / f"{batch:03}.ckpt", weights_only=True)
    progress = content["loops"]["fit_loop"]["epoch_progress"]
    for counts in progress.values():
        counts["ready"], counts["started"] = counts["ready"] - 1, counts["started"] - 1
    del content["lazy_lightning"][DIGEST]  # of the content that has been changed
    torch.save(content, tmp_path / "old.ckpt")
    assert_same_curves(run(tmp_path / "end", ckpt_path=tmp_path / "old.ckpt"), expected)
