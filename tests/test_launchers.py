"""Several devices by the launchers that users have: torchrun itself, and the environment that SLURM gives to tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import CONF, TINY
from rank_processes import run_ranks, slurm

from lazy_lightning.cli import main

RUN = [
    *TINY, "--config", str(CONF / "no_figures.yaml"), "--trainer.accelerator", "cpu", "--model.alpha", "[10.0]",
    "--model.seeds", "3", "--model.stop.max_steps", "20", "--trainer.logger.version", "run",
]  # fmt: skip
DDP = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


def arguments(place: Path, *more: str) -> list[str]:
    return [*RUN, "--trainer.logger.save_dir", str(place), *more]


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(place / "digits_fc" / "run" / "curves.parquet").drop(columns="wall")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    place = tmp_path_factory.mktemp("one")
    assert main(arguments(place)) == 0
    return curves(place)


def test_torchrun_trains_the_members_of_one_process_and_one_rank_prints(expected, tmp_path, request):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "lazy_lightning", *arguments(tmp_path, *DDP)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(request.config.rootpath)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    pd.testing.assert_frame_equal(curves(tmp_path), expected, rtol=1e-10, atol=1e-12)
    assert done.stdout.count("flow 100.0 %") == done.stdout.count("results in") == 1
    assert len([line for line in done.stdout.splitlines() if line.startswith("flow   0.0 %")]) == 1


def test_tasks_of_slurm_train_the_members_of_one_process_and_one_rank_prints(expected, tmp_path):
    codes = run_ranks(2, arguments(tmp_path, *DDP), tmp_path / "log", environment=slurm)
    first, second = ((tmp_path / "log" / rank).read_text() for rank in "01")
    assert codes == [0, 0], first + second
    pd.testing.assert_frame_equal(curves(tmp_path), expected, rtol=1e-10, atol=1e-12)
    assert first.count("results in") == first.count("flow 100.0 %") == 1
    assert second == ""
