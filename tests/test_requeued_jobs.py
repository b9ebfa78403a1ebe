"""Preemption under SLURM stops a job after a burst, with everything written, and requeues it; and ranks that die."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import CONF, TINY
from rank_processes import run_ranks, slurm

from lazy_lightning.modules import FlowModule, MiniBatchModule

RUN = [
    *TINY, "--config", str(CONF / "no_figures.yaml"), "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar",
    "false", "--model.alpha", "[10.0]", "--model.seeds", "2", "--trainer.logger.version", "run",
]  # fmt: skip
DDP = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


def folder(place: Path) -> Path:
    return next(place.glob("digits*/run"))


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(folder(place) / "curves.parquet").drop(columns="wall")


@pytest.fixture
def requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stub of ``scontrol`` on the path has been given."""
    calls, program = tmp_path / "calls", tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return calls


def test_preempted_job_of_two_ranks_is_requeued_once_and_resumed_to_the_bit(tmp_path: Path, requeued: Path) -> None:
    def preempt_in_the_third_burst(rank: int) -> None:
        step = FlowModule.training_step

        def training_step(self: FlowModule, batch: int, batch_idx: int) -> None:
            if batch_idx == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGTERM)  # SLURM sends it some time later
            step(self, batch, batch_idx)

        if rank == 1:  # the signal reaches one rank only
            FlowModule.training_step = training_step  # type: ignore[method-assign]

    def arguments(place: str) -> list[str]:
        return [*RUN, *DDP, "--trainer.logger.save_dir", str(tmp_path / place)]

    codes = run_ranks(2, arguments("cut"), tmp_path / "log", preempt_in_the_third_burst, slurm)
    assert codes == [0, 130], (tmp_path / "log" / "0").read_text()
    assert requeued.read_text() == "requeue 1234\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # Lightning's, saved within a burst
    cut = len(curves(tmp_path / "cut"))
    resume = ["fit", "--resume", str(folder(tmp_path / "cut"))]
    assert run_ranks(2, [*resume, *DDP], tmp_path / "log", environment=slurm) == [0, 0]
    assert run_ranks(2, arguments("whole"), tmp_path / "log", environment=slurm) == [0, 0]
    whole = curves(tmp_path / "whole")
    assert cut < len(whole)
    pd.testing.assert_frame_equal(curves(tmp_path / "cut"), whole, check_exact=True)
    assert requeued.read_text() == "requeue 1234\n"


def test_a_wall_limit_ends_all_ranks_after_the_same_burst_and_the_run_goes_on(tmp_path: Path) -> None:
    """Clocks of ranks differ: that of rank 0 decides, here 1 s an observation, while that of rank 1 stands still."""

    def a_clock_of_its_own(rank: int) -> None:
        FlowModule.seconds_so_far = lambda self: float(self.observations) * (rank == 0)  # type: ignore[method-assign]

    def arguments(place: str, *more: str) -> list[str]:
        return [*RUN, *DDP, "--trainer.logger.save_dir", str(tmp_path / place), *more]

    limited = arguments("cut", "--model.stop.max_wall", "3")
    assert run_ranks(2, limited, tmp_path / "log", a_clock_of_its_own) == [0, 0], (tmp_path / "log" / "0").read_text()
    reasons = [
        member["stop"] for member in json.loads((folder(tmp_path / "cut") / "summary.json").read_text())["members"]
    ]
    assert reasons == ["max_wall"] * 2
    assert curves(tmp_path / "cut").observation.max() == 3
    resume = ["fit", "--resume", str(folder(tmp_path / "cut")), *DDP, "--model.stop.max_wall", "1e6"]
    assert run_ranks(2, resume, tmp_path / "log") == [0, 0], (tmp_path / "log" / "0").read_text()
    assert run_ranks(2, arguments("whole"), tmp_path / "log") == [0, 0]
    cut, whole = (
        torch.load(folder(tmp_path / name) / "checkpoint.ckpt", weights_only=True) for name in ("cut", "whole")
    )
    torch.testing.assert_close(cut["state_dict"]["w"], whole["state_dict"]["w"], rtol=0, atol=0)


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_of_mini_batch_training_that_dies_ends_the_others_with_a_sentence(lost: int, tmp_path: Path) -> None:
    def die_in_the_fourth_step(rank: int) -> None:
        step = MiniBatchModule.optimizer_step

        def optimizer_step(self: MiniBatchModule, *args, **kwargs) -> None:
            if self.steps == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            step(self, *args, **kwargs)

        if rank == lost:
            MiniBatchModule.optimizer_step = optimizer_step  # type: ignore[method-assign]

    run = [
        "fit", "--config", "digits_minibatch.yaml", *RUN[5:], "--trainer.logger.save_dir", str(tmp_path),
        "--data.n_train", "60", "--data.n_test", "20", "--data.batch_size", "20", "--trainer.max_epochs", "4",
        "--model.search.steps", "3", "--model.network.width", "8", *DDP,
    ]  # fmt: skip
    codes = run_ranks(2, run, tmp_path / "log", die_in_the_fourth_step)
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == 1
    assert f"error: rank {lost} of 2 has ended before the others" in (tmp_path / "log" / str(1 - lost)).read_text()
    held = torch.load(folder(tmp_path) / "checkpoint.ckpt", weights_only=True)
    assert held["lazy_lightning"]["steps"] >= 1
    resume = ["fit", "--resume", str(folder(tmp_path)), *DDP]
    assert run_ranks(2, resume, tmp_path / "log") == [0, 0]  # not in this process: forking after training may deadlock
