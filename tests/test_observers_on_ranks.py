"""Every observer on two devices measures what it measures in one process, also after another number goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import CONF
from rank_processes import run_ranks
from safetensors.torch import load_file

from lazy_lightning import callbacks
from lazy_lightning.cli import main
from lazy_lightning.modules.observation import Observer

RUN = [
    "fit", "--config", "teacher_plane.yaml", "--config", str(CONF / "all_observers.yaml"),
    "--config", str(CONF / "no_figures.yaml"), "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
    "--trainer.logger.version", "run", "--model.alpha", "[0.1,1.0,10.0]", "--model.seeds", "3", "--model.dt", "0.4",
    "--model.stop.max_steps", "20", "--data.n_test", "20",
]  # fmt: skip
DDP = ["--trainer.strategy", "ddp", "--trainer.devices"]
COLUMNS = {
    "ActivationDrift": ("activation_drift/", "activation_velocity/"),
    "ActivationStability": ("activation_stability/",),
    "KernelDrift": ("kernel_drift/", "kernel_alignment", "label_alignment"),
    "KernelEvolution": ("kernel_evolution/",),
    "KernelSpectrum": ("kernel_spectrum/",),
    "LazinessIndex": ("laziness_index", "laziness/"),
    "PathDistance": ("path_distance/",),
    "PopulationLoss": ("population/",),
    "Sharpness": ("sharpness/",),
    "T1": ("t1/",),
    "TLazy": ("t_lazy/",),
    "TangentDeparture": ("tangent_departure",),
    "WeightDisplacement": ("displacement/", "dw_max/", "dw_mean/"),
}
ARRAYS = {"NeuronPaths": "neurons.safetensors", "KernelSnapshots": "kernels.safetensors"}


def arguments(place: Path, *more: str) -> list[str]:
    return [*RUN, "--trainer.logger.save_dir", str(place), *more]


def folder(place: Path) -> Path:
    return place / "teacher_plane" / "run"


def on_ranks(count: int, place: Path, *more: str) -> Path:
    codes = run_ranks(count, arguments(place, *more, *DDP, str(count)), place / "log")
    assert codes == [0] * count, (place / "log" / "0").read_text()
    return place


def curves(place: Path) -> pd.DataFrame:
    return pd.read_parquet(folder(place) / "curves.parquet")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("one")
    assert main(arguments(place)) == 0
    return place


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_ranks(2, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("observer", COLUMNS)
def test_columns_of_nine_members_on_two_ranks_equal_one_process(observer, one, two):
    expected, found = (curves(place) for place in (one, two))
    names = [name for name in expected if name.startswith(COLUMNS[observer])]
    assert names
    assert np.isfinite(expected[names].to_numpy()).any()
    pd.testing.assert_frame_equal(found[names], expected[names], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("sink", ARRAYS)
def test_arrays_of_nine_members_on_two_ranks_equal_one_process(sink, one, two):
    expected, found = (load_file(folder(place) / ARRAYS[sink]) for place in (one, two))
    assert len(expected["alpha"]) == {"NeuronPaths": 3, "KernelSnapshots": 6}[sink]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_paths_and_measurements_of_two_ranks_go_on_in_one_process_and_on_three_ranks(two, tmp_path):
    more = ["--model.stop.max_steps", "30", "--ckpt_path", str(folder(two) / "checkpoint.ckpt")]
    assert main(arguments(tmp_path / "one", *more)) == 0
    three = on_ranks(3, tmp_path / "three", *more)
    found, expected = (load_file(folder(place) / ARRAYS["NeuronPaths"]) for place in (three, tmp_path / "one"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    earlier = load_file(folder(two) / ARRAYS["NeuronPaths"])["places"]
    torch.testing.assert_close(expected["places"][:, : earlier.shape[1]], earlier, rtol=0, atol=0)
    assert expected["places"].shape[1] > earlier.shape[1]
    tables = [curves(place).drop(columns="wall") for place in (three, tmp_path / "one")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
def test_observations_within_long_steps_on_two_ranks_equal_one_process(tmp_path):
    more = ["--model.integrator", "auto", "--model.controller", "gradient_change", "--model.stop.max_steps", "60"]
    assert main(arguments(tmp_path / "one", *more)) == 0
    expected, found = (curves(p).drop(columns="wall") for p in (tmp_path / "one", on_ranks(2, tmp_path / "two", *more)))
    assert expected.duplicated(["member", "tried"]).any()
    pd.testing.assert_frame_equal(found[expected.columns], expected, rtol=1e-7, atol=1e-10)


def test_every_observer_is_compared():
    known = {name for name, each in vars(callbacks).items() if isinstance(each, type) and issubclass(each, Observer)}
    assert known <= {*COLUMNS, *ARRAYS}


def test_what_fails_on_one_rank_alone_keeps_no_other_waiting(tmp_path):
    def fail(rank: int) -> None:
        def raise_error(*args, **kwargs):
            raise RuntimeError("only here")

        observe = callbacks.NeuronPaths.observe

        def fail_later(self, module, observation):
            return raise_error() if observation.index == 2 else observe(self, module, observation)

        if rank == 1:
            callbacks.KernelSnapshots._kernel = raise_error  # type: ignore[method-assign]
            callbacks.NeuronPaths.observe = fail_later  # type: ignore[method-assign]

    codes = run_ranks(2, arguments(tmp_path, *DDP, "2"), tmp_path / "log", fail)
    printed = (tmp_path / "log" / "0").read_text()
    assert codes == [1, 1], printed
    assert "what NeuronPaths writes (RunError: the devices have recorded paths of different lengths" in printed
    assert not any((folder(tmp_path) / name).exists() for name in ARRAYS.values())
    assert (folder(tmp_path) / "outputs.safetensors").is_file()
