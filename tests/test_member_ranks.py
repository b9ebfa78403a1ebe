"""Several devices: members dealt out to real processes train as in one, and one folder holds them all."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import CONF, TINY, error_of
from rank_processes import run_ranks
from safetensors.torch import load_file

from lazy_lightning.cli import main
from lazy_lightning.modules import FlowModule
from lazy_lightning.modules.ranks import Ranks

MEMBERS = 7
RUN = [
    *TINY, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--model.alpha", "[10.0]",
    "--model.seeds", str(MEMBERS), "--trainer.logger.version", "run",
]  # fmt: skip
DDP = ["--trainer.strategy", "ddp", "--trainer.devices"]


def arguments(place: Path, *more: str) -> list[str]:
    return [*RUN, "--trainer.logger.save_dir", str(place), *more]


def folder(place: Path) -> Path:
    return place / "digits_fc" / "run"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the same run in one process, and on three ranks."""
    one, three = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("three")
    assert main(arguments(one)) == 0
    codes = run_ranks(3, arguments(three, *DDP, "3"), three / "log")
    assert codes == [0, 0, 0], (three / "log" / "0").read_text()
    return one, three


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(folder(place) / "curves.parquet").drop(columns="wall")


def test_curves_of_seven_members_on_three_ranks_equal_one_process(places):
    one, three = places
    pd.testing.assert_frame_equal(curves(one), curves(three), rtol=1e-10, atol=1e-12)


def test_outputs_and_summary_hold_all_members_in_the_order_of_one_process(places):
    one, three = (load_file(folder(place) / "outputs.safetensors") for place in places)
    torch.testing.assert_close(three, one, rtol=1e-10, atol=1e-12)
    summaries = [json.loads((folder(place) / "summary.json").read_text()) for place in places]
    assert [[m["seed"] for m in s["members"]] for s in summaries] == [list(range(MEMBERS))] * 2


def test_members_of_all_ranks_differ(places):
    one, three = (torch.load(folder(place) / "checkpoint.ckpt", weights_only=True) for place in places)
    w0 = three["state_dict"]["w0"]
    assert len(w0) == MEMBERS
    assert all(not torch.equal(w0[i], w0[j]) for i in range(MEMBERS) for j in range(i))
    assert torch.equal(w0, one["state_dict"]["w0"])


def test_only_the_first_rank_prints(places):
    log = places[1] / "log"
    assert "results in" in (log / "0").read_text()
    assert [(log / rank).read_text() for rank in "12"] == ["", ""]


def test_checkpoint_of_three_ranks_goes_on_with_two_and_with_one(places, tmp_path):
    more = ["--model.stop.max_steps", "80", "--ckpt_path", str(folder(places[1]) / "checkpoint.ckpt")]
    assert main(arguments(tmp_path / "one", *more)) == 0
    assert run_ranks(2, arguments(tmp_path / "two", *more, *DDP, "2"), tmp_path / "log") == [0, 0]
    table = curves(tmp_path / "two")
    assert table.tried.max() == 80
    pd.testing.assert_frame_equal(curves(tmp_path / "one"), table, rtol=1e-10, atol=1e-12)


def test_a_rank_that_dies_ends_the_run_with_a_sentence_that_names_it(tmp_path):
    def die_in_the_third_burst(rank: int) -> None:
        step = FlowModule.training_step

        def training_step(self: FlowModule, batch: int, batch_idx: int) -> None:
            if batch_idx == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            step(self, batch, batch_idx)

        if rank == 1:
            FlowModule.training_step = training_step  # type: ignore[method-assign]

    codes = run_ranks(2, arguments(tmp_path, *DDP, "2"), tmp_path / "log", die_in_the_third_burst)
    said = (tmp_path / "log" / "0").read_text()
    assert codes == [1, -signal.SIGKILL], said
    assert "error: rank 1 of 2 has ended before the others" in said
    held = torch.load(folder(tmp_path) / "checkpoint.ckpt", weights_only=True)
    assert len(held["state_dict"]["w"]) == MEMBERS  # goes on from here


@pytest.mark.slow
def test_kernel_flow_on_two_ranks_equals_one_process(tmp_path):
    kernel = ["kernel", *RUN[1:]]
    assert main([*kernel, "--trainer.logger.save_dir", str(tmp_path / "one")]) == 0
    place = tmp_path / "two"
    codes = run_ranks(2, [*kernel, "--trainer.logger.save_dir", str(place), *DDP, "2"], tmp_path / "log")
    assert codes == [0, 0], (tmp_path / "log" / "0").read_text()
    pd.testing.assert_frame_equal(curves(tmp_path / "one"), curves(place), rtol=1e-10, atol=1e-12)


def test_fewer_members_than_devices_is_one_sentence(capsys):
    assert "7 members for 8 devices" in error_of([*RUN, "--trainer.logger", "false", *DDP, "8"], capsys)


def test_several_devices_without_ddp_are_refused(capsys):
    said = error_of([*RUN, "--trainer.logger", "false", "--trainer.devices", "2"], capsys)
    assert "--trainer.strategy ddp" in said


def test_a_rank_that_waits_for_another_uses_no_core(tmp_path):
    def time_a_wait(rank: int) -> None:
        step, exchange = FlowModule.training_step, Ranks.together

        def sleep_once(self: FlowModule, batch: int, batch_idx: int) -> None:
            if batch_idx == 3:
                time.sleep(2.0)
            step(self, batch, batch_idx)

        def timed(self: Ranks, what: Callable[[], Any]) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            found = exchange(self, what)
            waits.append((time.perf_counter() - wall, time.process_time() - cpu))
            (tmp_path / "waits.json").write_text(json.dumps(waits))
            return found

        waits: list[tuple[float, float]] = []
        if rank == 0:
            FlowModule.training_step = sleep_once  # type: ignore[method-assign]
        else:
            Ranks.together = timed  # type: ignore[method-assign]

    run = arguments(tmp_path, "--config", str(CONF / "no_figures.yaml"), *DDP, "2")
    assert run_ranks(2, run, tmp_path / "log", time_a_wait) == [0, 0]
    wall, cpu = max(json.loads((tmp_path / "waits.json").read_text()))
    assert wall > 1.0
    assert cpu < 0.1 * wall
