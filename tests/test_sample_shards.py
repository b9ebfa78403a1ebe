"""One training set on several devices: real processes, each with a slice of it, follow the trajectory of one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import CONF, TINY, error_of
from rank_processes import run_ranks
from safetensors.torch import load_file

from lazy_lightning.cli import main
from lazy_lightning.flow import Evaluation
from lazy_lightning.flow.controllers import GradientChangeController
from lazy_lightning.modules import FlowModule
from lazy_lightning.objective.sharded_batch import ShardedObjective

RUN = [
    *TINY, "--config", str(CONF / "no_figures.yaml"), "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--trainer.logger.version", "run", "--model.alpha", "[0.1,10.0]",
    "--model.controller", "reference", "--model.tau", "0.01", "--model.chunk_size", "16",
]  # fmt: skip
OBSERVED = ["--config", str(CONF / "training_samples.yaml")]
DDP = ["--trainer.strategy", "ddp", "--trainer.devices"]
SAMPLES, BOTH = ["--model.shard", "samples"], ["--model.shard", "both"]


def arguments(place: Path, *more: str) -> list[str]:
    return [*RUN, "--trainer.logger.save_dir", str(place), *more]


def folder(place: Path) -> Path:
    return place / "digits_fc" / "run"


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(folder(place) / "curves.parquet").drop(columns="wall")


def assert_same_run(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(curves(one), curves(other), rtol=1e-10, atol=1e-12)
    outputs = (load_file(folder(place) / "outputs.safetensors") for place in (other, one))
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)


def fit_on(count: int, place: Path, *more: str, before=lambda rank: None) -> Path:
    codes = run_ranks(count, arguments(place, *more, *DDP, str(count)), place / "log", before)
    assert codes == [0] * count, (place / "log" / "0").read_text()
    return place


def keep_own_weights(place: Path) -> None:
    """Each rank writes the weights that it holds at the end, beside those that rank 0 writes for all."""

    def on_train_end(self: FlowModule) -> None:
        torch.save(self.flow.flow_state.tensors(), place / f"state_{self.trainer.global_rank}")

    FlowModule.on_train_end = on_train_end  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("one")
    assert main(arguments(place, *OBSERVED)) == 0
    return place


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("three")
    return fit_on(3, place, *OBSERVED, *SAMPLES, before=lambda rank: keep_own_weights(place))


def test_forty_samples_on_three_ranks_equal_one_process(one, three):
    assert_same_run(one, three)
    assert load_file(folder(three) / "outputs.safetensors")["train/outputs"].shape == (4, 40)


def test_all_ranks_hold_one_trajectory_to_the_bit(three):
    first, *others = (torch.load(three / f"state_{rank}", weights_only=True) for rank in range(3))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first if first[name] is not None)


def test_a_near_tie_is_decided_by_the_first_rank(three, tmp_path):
    def decide_otherwise(rank: int) -> None:
        judge = GradientChangeController.__call__

        def otherwise(self, dt, change):
            decision = judge(self, dt, change)
            return decision._replace(accept=~decision.accept, dt=decision.dt * 1.01)

        keep_own_weights(tmp_path)
        if rank > 0:
            GradientChangeController.__call__ = otherwise  # type: ignore[method-assign]

    fit_on(3, tmp_path, *SAMPLES, before=decide_otherwise)
    for rank in range(3):
        expected, found = (torch.load(p / f"state_{rank}", weights_only=True) for p in (three, tmp_path))
        assert all(torch.equal(expected[name], found[name]) for name in expected if expected[name] is not None)


def test_states_that_differ_in_last_digits_become_that_of_the_first_rank(three, tmp_path):
    def round_otherwise(rank: int) -> None:
        step = FlowModule.training_step

        def training_step(self: FlowModule, batch: int, batch_idx: int) -> None:
            if batch_idx == 3:
                self.flow.flow_state.displacement.mul_(1 + 4e-16)
            step(self, batch, batch_idx)

        keep_own_weights(tmp_path)
        if rank > 0:
            FlowModule.training_step = training_step  # type: ignore[method-assign]

    fit_on(2, tmp_path, *SAMPLES, before=round_otherwise)
    first, other = (torch.load(tmp_path / f"state_{rank}", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], other[name]) for name in first if first[name] is not None)
    expected = torch.load(three / "state_0", weights_only=True)["displacement"]
    torch.testing.assert_close(first["displacement"], expected, rtol=1e-10, atol=1e-12)


def test_weights_that_differ_by_more_than_rounding_end_the_run(tmp_path):
    def go_elsewhere(rank: int) -> None:
        step = FlowModule.training_step

        def training_step(self: FlowModule, batch: int, batch_idx: int) -> None:
            if batch_idx == 3:
                self.flow.flow_state.displacement.mul_(1.01)
            step(self, batch, batch_idx)

        if rank > 0:
            FlowModule.training_step = training_step  # type: ignore[method-assign]

    run = arguments(tmp_path, *SAMPLES, *DDP, "2")
    assert run_ranks(2, run, tmp_path / "log", go_elsewhere) == [1, 1]
    said = (tmp_path / "log" / "0").read_text()
    assert "error: devices that hold slices of one training set have different weights" in said


def test_members_and_samples_on_a_mesh_of_four_ranks_equal_one_process(one, tmp_path):
    assert_same_run(one, fit_on(4, tmp_path, *OBSERVED, *BOTH))


def test_explicit_steps_on_slices_equal_one_process(tmp_path):
    """Also where the configuration chooses auto, whose implicit part needs the kernel of all samples."""
    steps = ["--model.controller", "gradient_change", "--model.stop.max_steps", "200", "--model.integrator"]
    assert main(arguments(tmp_path / "one", *steps, "explicit")) == 0
    two = fit_on(2, tmp_path / "two", *steps, "auto", *SAMPLES)
    assert curves(two).accepted.max() > 10
    assert_same_run(tmp_path / "one", two)


def test_implicit_steps_on_slices_are_one_sentence(capsys):
    steps = ["--model.controller", "gradient_change", "--model.integrator", "implicit", "--trainer.logger", "false"]
    said = error_of([*RUN, *steps, *SAMPLES, *DDP, "2"], capsys)
    assert "model.integrator is implicit, which needs the tangent kernel of all training samples" in said


def test_checkpoint_of_three_slices_goes_on_with_two_and_with_one(three, tmp_path):
    more = [*OBSERVED, "--model.stop.max_steps", "80", "--ckpt_path", str(folder(three) / "checkpoint.ckpt")]
    assert main(arguments(tmp_path / "one", *more)) == 0
    two = fit_on(2, tmp_path / "two", *more, *SAMPLES)
    assert curves(two).tried.max() == 80
    assert_same_run(tmp_path / "one", two)


def test_a_rank_that_dies_within_a_step_ends_the_run_with_a_sentence_that_names_it(tmp_path):
    def die_in_an_evaluation(rank: int) -> None:
        evaluate, counted = ShardedObjective.backward, [0]

        def backward(self: ShardedObjective, w: torch.Tensor) -> Evaluation:
            counted[0] += 1
            if counted[0] == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            return evaluate(self, w)

        if rank == 1:
            ShardedObjective.backward = backward  # type: ignore[method-assign]

    codes = run_ranks(2, arguments(tmp_path, *SAMPLES, *DDP, "2"), tmp_path / "log", die_in_an_evaluation)
    assert codes == [1, -signal.SIGKILL]
    assert "error: rank 1 of 2 has ended before the others" in (tmp_path / "log" / "0").read_text()


def test_fewer_samples_than_devices_is_one_sentence_before_a_process_is_started(capsys):
    few = [*RUN, "--trainer.logger", "false", "--data.n_train", "2", *SAMPLES, *DDP, "3"]
    assert "2 samples for 3 devices" in error_of(few, capsys)


@pytest.mark.parametrize("shard", ["samples", pytest.param("both", marks=pytest.mark.slow)])
def test_tiles_of_a_kernel_on_several_ranks_give_the_flow_of_one_process(shard, tmp_path):
    count = {"samples": 2, "both": 4}[shard]
    kernel = ["kernel", *RUN[1:], "--trainer.logger.save_dir"]
    assert main([*kernel, str(tmp_path / "one")]) == 0
    place = tmp_path / shard
    codes = run_ranks(count, [*kernel, str(place), "--model.shard", shard, *DDP, str(count)], tmp_path / "log")
    assert codes == [0] * count, (tmp_path / "log" / "0").read_text()
    assert_same_run(tmp_path / "one", place)


def test_another_shard_is_one_sentence(capsys):
    assert "members, samples" in error_of([*RUN, "--trainer.logger", "false", "--model.shard", "rows"], capsys)
