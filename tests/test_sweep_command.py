"""``sweep`` as a user meets it: what it trains, what it does not train again, and how it goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from command_line import error_of
from torch import Tensor, nn

from lazy_lightning.cli import main
from lazy_lightning.cli.batch import Reporter
from lazy_lightning.data import Digits
from lazy_lightning.errors import DataError, MemoryShortageError, RunError
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.modules import FlowModule, KernelModule
from lazy_lightning.modules.guarded_callback import is_out_of_memory
from lazy_lightning.nn import FC
from lazy_lightning.runs import load_runs

pytestmark = pytest.mark.usefixtures("own_folder", "no_figures")

BASE = """
trainer: {enable_progress_bar: false}
model:
  class_path: lazy_lightning.modules.FlowModule
  init_args:
    network: {class_path: lazy_lightning.nn.FC, init_args: {width: 8, depth: 2}}
    dt: 0.01
    stop: {max_steps: 40}
data:
  class_path: lazy_lightning.data.Digits
  init_args: {n_train: 40, n_test: 30, pca: 4}
"""
GRID = (
    "{grid: {model.network.width: [8, 12], alpha: [0.1, 10.0], seeds: 2}, kernels: [init, end], keep_checkpoints: true}"
)
DRIFT = "trainer: {callbacks+: {class_path: lazy_lightning.callbacks.KernelDrift, init_args: {t_factor: .inf}}}"
WHERE = ["wall_seconds", "path", "run", "member", "model.checkpoint"]
"""What a member's result does not consist of."""
COMPANY = ["run/train/ensemble_error", "run/test/ensemble_error"]
"""What depends on the other seeds in the run."""


class Uncertain(nn.Module):
    """A network that some seeds make a bad one of, until it has been mended."""

    mended = False

    def __init__(self, input_shape: Any = None, width: int = 8):
        super().__init__()
        self.body = FC(input_shape=input_shape, width=width, depth=1)
        good = bool(torch.rand(()) < 0.5) or Uncertain.mended
        self.register_buffer("scale", torch.tensor(1.0 if good else torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.body(x)


class Refused(Digits):
    """Digits of which one training seed cannot be drawn."""

    def build(self) -> Any:
        if self.constructor_arguments["train_seed"] == 1:
            raise DataError("the training set of seed 1 lacks a class")
        return super().build()


UNCERTAIN = "model: {init_args: {network: {class_path: test_sweep_command.Uncertain}}}"
BAD_SEEDS = {1, 4}
"""Of the first six, found by trying; the tests look whether it is so."""


def command(folder: Path, spec: str, *configs: str, options: tuple[str, ...] = ()) -> list[str]:
    """``sweep`` in ``folder / "out"``."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(spec)
    given = []
    for i, content in enumerate((BASE, *configs)):
        (folder / f"config{i}.yaml").write_text(content)
        given += ["--config", str(folder / f"config{i}.yaml")]
    return [
        "sweep",
        *given,
        "--sweep",
        str(folder / "mine.yaml"),
        "--out",
        str(folder / "out"),
        "--workers=0",
        *options,
    ]


def sweep(folder: Path, spec: str, *configs: str, options: tuple[str, ...] = ()) -> int:
    return main(command(folder, spec, *configs, options=options))


def fit(*options: str, subcommand: str = "fit") -> pd.DataFrame:
    """A run by hand, and its rows."""
    Path("base.yaml").write_text(BASE)
    assert main([subcommand, "--config", "base.yaml", "--trainer.logger.save_dir=by_hand", *options]) == 0
    return load_runs("by_hand")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Of all files of all runs: when they were written, and their sizes."""
    runs = [path for path in (folder / "out").iterdir() if path.is_dir() and path.name != "plan"]
    files = [path for run in runs for path in run.rglob("*") if path.is_file()]
    return {str(f.relative_to(folder / "out")): (f.stat().st_mtime_ns, f.stat().st_size) for f in files}


def assert_same_results(some: pd.DataFrame, others: pd.DataFrame, rtol: float = 0.0) -> None:
    """Of the same members: all columns but those of where, and how long; ``rtol`` where their batches were others."""
    left_out = WHERE if rtol == 0 else [*WHERE, *COMPANY]
    chosen = (runs.dropna(axis="columns", how="all").drop(columns=left_out, errors="ignore") for runs in (some, others))
    one, other = (runs.sort_values("id").reset_index(drop=True) for runs in chosen)
    pd.testing.assert_frame_equal(
        one, other, check_exact=rtol == 0, rtol=rtol, atol=0, check_like=True, check_dtype=False
    )


def members(runs: pd.DataFrame) -> set[tuple[float, int]]:
    return set(zip(runs["alpha"], runs["seed"], strict=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep over two widths, with the kernels of all its networks."""
    folder = tmp_path_factory.mktemp("sweep")
    assert sweep(folder, GRID) == 0
    return folder


@pytest.fixture(scope="module")
def rows(done: Path) -> pd.DataFrame:
    return load_runs(done / "out")


# ---------------------------------------------------------------------- what is trained


def test_every_member_once_in_batches_of_one_shape(rows: pd.DataFrame) -> None:
    assert (rows["status"] == "finished").all()
    assert rows.groupby(["model", "h"]).size().to_dict() == {
        ("network", 8): 4,
        ("network", 12): 4,
        ("kernel at init", 8): 2,  # centred outputs do not depend on alpha
        ("kernel at init", 12): 2,
        ("kernel at end", 8): 4,
        ("kernel at end", 12): 4,
    }
    assert rows["run"].nunique() == 6
    assert (rows.groupby("run")["h"].nunique() == 1).all()
    assert rows["model.network.width"].eq(rows["h"]).all()


def test_again_there_is_nothing_to_do(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(done)
    assert sweep(done, GRID) == 0
    assert sweep(done, GRID, options=("--retry_failed",)) == 0
    assert "20 of 20 members are done, 0 failed" in capsys.readouterr().out
    assert state(done) == before


def test_a_member_does_not_depend_on_its_batch(rows: pd.DataFrame) -> None:
    alone = fit("--model.alpha=10", "--model.seeds=[1]", "--model.network.width=12")
    batched = rows[(rows["model"] == "network") & (rows["alpha"] == 10) & (rows["seed"] == 1) & (rows["h"] == 12)]
    assert alone["id"].tolist() == batched["id"].tolist()
    assert alone["tried"].tolist() == batched["tried"].tolist() == [40]
    # sums over a batch have another order; over 40 steps that stays far below
    assert_same_results(alone, batched, rtol=1e-10)


def test_kernels_are_those_of_the_kernel_command(done: Path, rows: pd.DataFrame) -> None:
    start = fit("--model.alpha=0.1", "--model.seeds=2", "--model.network.width=12", subcommand="kernel")
    swept = rows[(rows["model"] == "kernel at init") & (rows["h"] == 12)]
    for name in ("test/error", "test/loss", "train/loss", "t"):
        np.testing.assert_allclose(start[name], swept[name], rtol=1e-9)
    run = done / "out" / rows[(rows["model"] == "network") & (rows["h"] == 8)]["run"].iloc[0]
    arguments = ["kernel", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoint.ckpt"]
    assert main([*arguments, "--trainer.logger.save_dir=end"]) == 0
    assert_same_results(load_runs("end"), rows[(rows["model"] == "kernel at end") & (rows["h"] == 8)], rtol=1e-10)


def test_every_run_is_an_ordinary_one(done: Path, rows: pd.DataFrame) -> None:
    for run in rows["run"].unique():
        names = {path.name for path in (done / "out" / run).iterdir()}
        expected = {
            "config.yaml",
            "curves.parquet",
            "summary.json",
            "outputs.safetensors",
            "checkpoint.ckpt",
            "log.txt",
        }
        assert expected <= names
        assert "flow 100.0 %" not in (done / "out" / run / "log.txt").read_text()  # the bar was switched off
    assert rows.outputs.load("test").outputs.shape == (20, 30)
    asked = yaml.safe_load((done / "out/sweep.yaml").read_text())
    assert asked["sweep"] == yaml.safe_load(GRID)
    assert asked["config"]["model"]["init_args"]["dt"] == 0.01


def test_a_run_can_be_shown(done: Path, rows: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    for run in rows["run"].unique():
        capsys.readouterr()
        assert main(["runs", "show", str(done / "out" / run)]) == 0
        shown = capsys.readouterr().out
        for word in ("model.network.width", "test error", "alpha = ", "results in", "summary.json"):
            assert word in shown


def test_sqrt_h_alpha_and_integers_from_a_range(tmp_path: Path) -> None:
    """And words that are meant as numbers, and infinity, on their way through the parser."""
    grid = "{grid: {model.network.width: {from: 4, to: 16, points: 2}, sqrt_h_alpha: [2.0], model.dt: [1e-3]}}"
    assert sweep(tmp_path, grid, DRIFT) == 0
    runs = load_runs(tmp_path / "out")
    assert runs[["h", "alpha", "sqrt_h_alpha", "model.dt"]].values.tolist() == [
        [4, 1.0, 2.0, 1e-3],
        [16, 0.5, 2.0, 1e-3],
    ]
    assert runs["kernel_drift/total"].notna().all()
    assert not list((tmp_path / "out").rglob("checkpoint.ckpt"))  # not asked for


def test_dry_run(tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, GRID, options=("--dry_run", "--max_members=2")) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for word in ("members", "weights", "memory", "time", "width 12", "kernel at init", "0 of 12 members are done"):
        assert word in shown
    assert shown.count(" x 1 seed)") == 4
    before = state(done)
    assert sweep(done, GRID, options=("--dry_run",)) == 0
    assert "mine: 0 batches" in capsys.readouterr().out
    assert state(done) == before


def test_only_what_is_new_is_trained(tmp_path: Path) -> None:
    assert sweep(tmp_path, "{grid: {alpha: [0.1], seeds: 1}}") == 0
    before, old = state(tmp_path), set(load_runs(tmp_path / "out")["run"])
    assert sweep(tmp_path, "{grid: {alpha: [0.1, 10.0], seeds: [0, 5]}}") == 0
    runs = load_runs(tmp_path / "out", duplicates=True)
    assert members(runs[~runs["run"].isin(old)]) == {(0.1, 5), (10.0, 0), (10.0, 5)}
    assert len(runs) == 4
    assert {name: at for name, at in state(tmp_path).items() if name in before} == before


# ---------------------------------------------------------------------- what fails


def test_what_fails_is_recorded_and_tried_again_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some members of a batch, a batch that is refused when it begins, and one whose data are not there."""
    grid = "{grid: {data.n_test: [1, 30, 5000], alpha: [0.1, 10.0], seeds: 6}}"
    arguments = command(tmp_path, grid, DRIFT, UNCERTAIN)
    assert main(arguments) == 1
    assert "8 of 36 members are done, 28 failed" in capsys.readouterr().out
    runs = load_runs(tmp_path / "out")
    reasons = {n: set(rows["reason"]) for n, rows in runs[runs["status"] == "failed"].groupby("data.n_test")}
    assert reasons[30] == {"non_finite"}
    assert "a kernel needs 2 samples at least" in min(reasons[1])
    assert "5040 samples are asked for" in min(reasons[5000])
    ended = runs[runs["data.n_test"] == 30]
    assert set(ended[ended["status"] == "failed"]["seed"]) == BAD_SEEDS
    assert ended[ended["status"] == "finished"]["test/error"].notna().all()

    before = state(tmp_path)
    assert main(arguments) == 1
    assert state(tmp_path) == before

    monkeypatch.setattr(Uncertain, "mended", True)
    good = str(ended["run"].iloc[0])
    assert main([*arguments, "--retry_failed"]) == 1
    runs = load_runs(tmp_path / "out", duplicates=True)
    assert members(runs[(runs["data.n_test"] == 30) & (runs["run"] != good)]) == {
        (a, s) for a in (0.1, 10) for s in (1, 4)
    }
    assert {name: at for name, at in state(tmp_path).items() if name.startswith(good)} == {
        name: at for name, at in before.items() if name.startswith(good)
    }
    counts = load_runs(tmp_path / "out").groupby(["data.n_test", "status"]).size().to_dict()
    assert counts == {(1, "failed"): 12, (30, "finished"): 12, (5000, "failed"): 12}


def test_kernels_of_those_that_finished(tmp_path: Path) -> None:
    """A member without an end has no kernel there, and its company is not to suffer."""
    assert sweep(tmp_path, "{grid: {seeds: 6}, kernels: end}", UNCERTAIN) == 1
    runs = load_runs(tmp_path / "out")
    finished = runs[runs["status"] == "finished"]
    for model in ("network", "kernel at end"):
        assert set(finished[finished["model"] == model]["seed"]) == set(range(6)) - BAD_SEEDS
    assert set(runs[runs["model"] == "kernel at end"]["status"]) == {"finished"}
    # as if it had been alone
    alone = tmp_path / "alone"
    assert sweep(alone, "{grid: {seeds: [3]}, kernels: end}", UNCERTAIN) == 0
    assert_same_results(load_runs(alone / "out"), finished[finished["seed"] == 3], rtol=1e-9)


def test_a_run_that_its_trainer_has_cut_short_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, "{}", options=("--trainer.max_steps=2",)) == 1
    assert "failed: it ended without a result" in capsys.readouterr().out
    assert load_runs(tmp_path / "out")["status"].tolist() == ["failed"]


def test_a_batch_that_does_not_fit_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame
) -> None:
    tried: Counter[int] = Counter()
    start = FlowModule.on_fit_start

    def short_of_memory(module: FlowModule) -> None:
        tried[len(module.ensemble)] += 1
        if len(module.ensemble) > 2:
            raise torch.OutOfMemoryError("no")
        start(module)

    monkeypatch.setattr(FlowModule, "on_fit_start", short_of_memory)
    assert sweep(tmp_path, "{grid: {alpha: [0.1, 10.0], seeds: 2}}") == 0
    assert tried == {4: 1, 2: 2}
    found = load_runs(tmp_path / "out", duplicates=True)
    assert_same_results(found, rows[(rows["h"] == 8) & (rows["model"] == "network")], rtol=1e-9)
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {*found["run"], "plan"}
    assert {path.stem for path in (tmp_path / "out/plan").iterdir()} == set(found["run"])


def test_kernels_that_do_not_fit_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame
) -> None:
    """They are many times the size of the networks that they are the kernels of."""
    require = KernelModule._require_memory

    def short_of_memory(module: KernelModule) -> None:
        if len(module.ensemble) > 1:
            raise MemoryShortageError("no")
        require(module)

    monkeypatch.setattr(KernelModule, "_require_memory", short_of_memory)
    assert sweep(tmp_path, "{grid: {alpha: [0.1], seeds: 2}, kernels: [end]}") == 0
    expected = rows[(rows["h"] == 8) & (rows["alpha"] == 0.1) & (rows["model"] != "kernel at init")]
    assert_same_results(load_runs(tmp_path / "out"), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("error", "divided"),
    [
        (torch.OutOfMemoryError("no"), True),
        (MemoryShortageError("no"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (RunError("no"), False),
    ],
    ids=repr,
)
def test_which_errors_fewer_members_may_mend(error: Exception, divided: bool) -> None:
    assert is_out_of_memory(error) == divided


def test_one_member_that_does_not_fit_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(module: FlowModule) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(FlowModule, "on_fit_start", no_memory)
    assert sweep(tmp_path, "{}") == 1
    runs = load_runs(tmp_path / "out")
    assert runs["status"].tolist() == ["failed"]
    assert "out of memory" in runs["reason"].iloc[0]


# ---------------------------------------------------------------------- what stops it


class Stops:
    """Sends a signal to this process at the n-th observation of the sweep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        record = Reporter.record

        def counted(reporter: Reporter, *args: Any) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            record(reporter, *args)

        monkeypatch.setattr(Reporter, "record", counted)


def test_stopped_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = "{grid: {model.network.width: [8, 12], alpha: [0.1, 10.0], seeds: 2}}"
    one_batch = len(pd.read_parquet(rows[rows["model"] == "network"]["path"].iloc[0] + "/curves.parquet")) // 4
    before = signal.getsignal(signal.SIGINT)
    Stops(monkeypatch, one_batch + 3)
    assert sweep(tmp_path, grid) == 130
    assert signal.getsignal(signal.SIGINT) is before
    shown = capsys.readouterr().out
    assert "4 of 8 members are done, 0 failed" in shown
    assert "stopped: give the same command again to resume" in shown
    stopped = load_runs(tmp_path / "out")
    assert stopped.groupby("status").size().to_dict() == {"finished": 4, "unfinished": 4}
    done, under_way = (stopped[stopped["status"] == s]["run"].iloc[0] for s in ("finished", "unfinished"))
    assert (tmp_path / "out" / under_way / "checkpoint.ckpt").is_file()
    kept = {name: at for name, at in state(tmp_path).items() if name.startswith(done)}
    assert sweep(tmp_path, grid) == 0
    found = load_runs(tmp_path / "out", duplicates=True)
    assert_same_results(found, rows[rows["model"] == "network"])
    assert {n: at for n, at in kept.items() if "checkpoint" not in n} == {
        name: at for name, at in state(tmp_path).items() if name.startswith(done)
    }
    curves = found.curves.load()
    assert len(curves[curves["run"] == under_way]) == 4 * one_batch  # from its true beginning


def test_a_summary_that_was_not_written_any_more(done: Path, rows: pd.DataFrame) -> None:
    """Killed after the last checkpoint: nothing is left to train, and everything to write."""
    run = rows[rows["model"] == "network"]["run"].iloc[0]
    told = json.loads((done / "out" / run / "summary.json").read_text())
    for name in ("summary.json", "outputs.safetensors"):
        (done / "out" / run / name).unlink()
    assert len(load_runs(done / "out").query("status == 'unfinished'")) == 4
    assert sweep(done, GRID) == 0
    assert json.loads((done / "out" / run / "summary.json").read_text()) == told
    assert_same_results(load_runs(done / "out"), rows)
    assert load_runs(done / "out").outputs.available


def test_two_sweeps_at_once_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(tmp_path, "{}")
    with SweepFolder(tmp_path / "out").locked():
        said = error_of(arguments, capsys)
    assert f"another sweep is running in {tmp_path}/out: wait until it has ended" in said
    assert main(arguments) == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(tmp_path, "{}")
    (tmp_path / "out").write_text("a file")
    assert f"cannot write to {tmp_path}/out" in error_of(arguments, capsys)


def test_a_disk_that_fills_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame
) -> None:
    """It is told in one sentence, and what was not written then is trained when there is room."""
    make, full = tempfile.mkstemp, False

    def until_full(*args: Any, **options: Any) -> Any:
        nonlocal full
        full = full or "outputs" in options.get("prefix", "")
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(*args, **options)

    arguments = command(tmp_path, "{grid: {alpha: [0.1, 10.0], seeds: 2}}")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", until_full)
        assert main(arguments) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert main(arguments) == 0
    assert_same_results(load_runs(tmp_path / "out"), rows[(rows["model"] == "network") & (rows["h"] == 8)])


def test_results_that_could_not_be_written_fail_the_sweep_and_leave_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise ValueError("cannot be converted")

    monkeypatch.setattr("lazy_lightning.callbacks.saved_arrays.save_file", broken)
    assert main(command(tmp_path, "{grid: {alpha: 0.1, seeds: 1}}")) == 1
    assert "outputs.safetensors could not be written" in capsys.readouterr().out
    assert set(load_runs(tmp_path / "out")["status"]) == {"finished"}


# ---------------------------------------------------------------------- bisection

CROSSING = "{from: 0.3, to: 30, column: tangent_departure, level: 0.1, tolerance: 0.15, points: 4}"
STEPS = "model: {init_args: {dt: 0.05, stop: {max_steps: 25}, controller: {class_path: ConstantStep}}}"


def test_bisection_finds_what_a_dense_grid_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert sweep(tmp_path / "dense", "{grid: {sqrt_h_alpha: {from: 0.3, to: 30, points: 21}, seeds: 2}}", STEPS) == 0
    dense = load_runs(tmp_path / "dense/out").groupby("sqrt_h_alpha")["tangent_departure"]
    means = dense.agg(lambda values: np.exp(np.log(values).mean()))
    assert (np.diff(means) < 0).all()
    crossing = np.exp(np.interp(np.log(0.1), np.log(means[::-1]), np.log(means.index[::-1])))

    spec = f"{{grid: {{seeds: 2}}, bisect: {CROSSING}}}"
    assert sweep(tmp_path / "whole", spec, STEPS) == 0
    low, high = interval(capsys.readouterr().out)
    assert low * 0.999 < crossing < high * 1.001  # told with four digits; the grid is interpolated
    assert high / low < 10**0.15 * 1.001
    whole = load_runs(tmp_path / "whole/out", duplicates=True)
    assert len(whole) < 40
    assert whole["id"].is_unique

    rounds = len(whole) // 8  # of four scales and two seeds
    assert rounds > 1
    Stops(monkeypatch, len(whole.curves.load()) // 8 // rounds + 3)
    assert sweep(tmp_path / "cut", spec, STEPS) == 130
    assert "crosses" not in capsys.readouterr().out
    assert sweep(tmp_path / "cut", spec, STEPS) == 0
    assert interval(capsys.readouterr().out) == (low, high)
    assert_same_results(load_runs(tmp_path / "cut/out", duplicates=True), whole)


def interval(shown: str) -> tuple[float, float]:
    words = next(line for line in shown.splitlines() if "crosses 0.1" in line).split()
    return float(words[-3]), float(words[-1])


def test_a_bisection_of_what_is_not_observed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(tmp_path, "{bisect: {from: 1, to: 10}}")
    sentence = error_of(arguments, capsys)
    assert "bisect uses the column kernel_drift/total, which these runs have not observed" in sentence


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{grid: {model.network.widht: [8]}}", "unknown key model.network.widht: did you mean width?"),
        ("{grid: {alpha: {from: 1, to: 50, per_decade: 1}}}", "from 1 to 50 is not a whole number of steps"),
        (
            "{grid: {sqrt_h_alpha: 1, model.network: {class_path: torch.nn.LazyLinear, init_args: {out_features: 1}}}}",
            "sqrt_h_alpha needs the network's width, but LazyLinear has no argument of that name",
        ),
        ("{grid: {model.chunk_size: [null, 10]}}", "chunk_size 10 and chunk_size None give the same results"),
        ("{grid: {model.network.width: [eight]}}", "model.network.width is eight, expected an integer"),
        ("{grid: {model.network.activation: [relu, rleu]}}", "unknown activation 'rleu'"),
        ("{grid: {data.batch_size: [10]}}", "data.batch_size is 10"),
        ("{grid: {trainer.precision: [16-mixed]}}", "trainer.precision is 16-mixed"),
        ("{kernels: true}", "kernels has True"),
        ("{grid: [", "mine.yaml, line 1: this is not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    spec: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, spec)
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert not list((tmp_path / "out").glob("*/config.yaml"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sweep=missing.yaml"], "there is no configuration file missing.yaml"),
        (["--workers=-1"], "workers >= 0"),
        (["--max_members=0"], "max_members >= 1"),
        (["--sweep=null"], "sweep needs --sweep FILE"),
    ],
)
def test_wrong_options(options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of([*command(tmp_path, "{}"), *options], capsys)


def test_one_initial_kernel_for_several_alphas_needs_one_stored_alpha(tmp_path, capsys):
    """A run of several alphas holds a network for each, so the kernel at w0 depends on alpha."""
    model = {"init_args": {"alpha": [0.1, 1.0], "stop": {"max_steps": 1}}}
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"model": model}))
    source = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.name", "first"]
    configs = [f"--config={tmp_path / name}.yaml" for name in ("base", "more")]
    assert main(["fit", *configs, *source]) == 0
    init = f"model: {{init_args: {{init: {tmp_path / 'first/version_0'}}}}}"
    spec = "{grid: {alpha: [0.1, 1.0]}, kernels: [init]}"
    found = error_of(command(tmp_path / "refused", spec, init), capsys)
    assert "holds weights of the alphas [0.1, 1.0]: set model.init_alpha to one of them" in found
    chosen = "model: {init_args: {init_alpha: 1.0}}"
    assert main(command(tmp_path / "taken", spec, init, chosen, options=("--dry_run",))) == 0


def test_data_seeds_of_a_grid_share_a_run(tmp_path: Path) -> None:
    """Members have the identities and the results that they have in a run for each seed."""
    spec = "{grid: {data.train_seed: [3, 5], alpha: [0.1, 10.0], seeds: 2}}"
    assert sweep(tmp_path / "together", spec) == 0
    rows = load_runs(tmp_path / "together")
    assert (len(rows), rows["run"].nunique(), sorted(rows["data.train_seed"].unique())) == (8, 1, [3, 5])
    for seed in (3, 5):
        assert sweep(tmp_path / str(seed), spec.replace("[3, 5]", str(seed))) == 0
    alone = pd.concat([load_runs(tmp_path / str(seed)) for seed in (3, 5)])
    assert_same_results(rows, alone, rtol=1e-9)
    before = state(tmp_path / "together")
    assert sweep(tmp_path / "together", spec) == 0
    assert state(tmp_path / "together") == before


def test_observers_of_shared_samples_keep_data_seeds_apart(tmp_path: Path) -> None:
    """KernelDrift refuses members with samples of their own, so each seed has its run."""
    assert sweep(tmp_path, "{grid: {data.train_seed: [3, 5]}}", DRIFT) == 0
    rows = load_runs(tmp_path)
    assert (len(rows), rows["run"].nunique()) == (2, 2)
    assert rows["kernel_drift/total"].notna().all()


MINI_BATCHES = """
trainer: {max_epochs: 2, enable_progress_bar: false}
model:
  class_path: lazy_lightning.modules.MiniBatchModule
  init_args:
    network: {class_path: lazy_lightning.nn.FC, init_args: {width: 8, depth: 2}}
    alpha: [0.1, 10.0]
data:
  class_path: lazy_lightning.data.Digits
  init_args: {n_train: 40, n_test: 30, pca: 4, batch_size: 10}
"""


def test_batch_seeds_of_a_grid_share_a_run(tmp_path: Path) -> None:
    """So do observers of kernels, because the training set is the same."""

    def trained(folder: Path, seeds: str) -> pd.DataFrame:
        folder.mkdir()
        (folder / "mini.yaml").write_text(MINI_BATCHES)
        (folder / "drift.yaml").write_text(DRIFT)
        (folder / "grid.yaml").write_text(f"{{grid: {{model.batch_seed: {seeds}, seeds: 2}}}}")
        given = [f"--config={folder}/{name}.yaml" for name in ("mini", "drift")]
        assert main(["sweep", *given, f"--sweep={folder}/grid.yaml", f"--out={folder}/out", "--workers=0"]) == 0
        return load_runs(folder)

    rows = trained(tmp_path / "together", "[1, 2]")
    assert (len(rows), rows["run"].nunique(), sorted(rows["model.batch_seed"].unique())) == (8, 1, [1, 2])
    alone = pd.concat([trained(tmp_path / seed, seed) for seed in "12"])
    assert_same_results(rows, alone, rtol=1e-9)
    one, two = (rows[rows["model.batch_seed"] == seed]["train/loss"].to_numpy() for seed in (1, 2))
    assert not np.allclose(one, two, rtol=1e-3)


def test_a_data_set_that_is_refused_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run of both seeds is divided."""
    refused = "data: {class_path: test_sweep_command.Refused}"
    assert sweep(tmp_path, "{grid: {data.train_seed: [0, 1]}}", refused) == 1
    rows = load_runs(tmp_path)
    assert dict(zip(rows["data.train_seed"], rows["status"], strict=True)) == {0: "finished", 1: "failed"}
    assert "is divided" in capsys.readouterr().out
