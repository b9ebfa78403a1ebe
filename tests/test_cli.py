"""The command line as a user meets it: subcommands, resuming, callbacks, and what is not written."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import CONF, QUIET, TINY, built, error_of
from pyarrow.parquet import ParquetFile
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ProgressBar
from safetensors.torch import load_file

from lazy_lightning import __version__, load_runs
from lazy_lightning.callbacks import T1, Curves, LearningCurves, TangentDeparture, WeightDisplacement
from lazy_lightning.cli import main, short_help
from lazy_lightning.cli.flow_cli import single_observers
from lazy_lightning.cli.user_messages import user_message
from lazy_lightning.data import Digits
from lazy_lightning.errors import DataError
from lazy_lightning.modules import FlowModule, StoppingCriteria

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def own_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which the first run has drawn: they take longer than all the rest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearningCurves, "on_train_end", lambda *args: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    assert main([*TINY, f"--trainer.logger.save_dir={folder}"]) == 0
    return folder / "digits_fc" / "version_0"


def again(run: Path, subcommand: str = "fit", ckpt: Path | None = None) -> list[str]:
    arguments = [subcommand, "--config", str(run / "config.yaml"), "--trainer.logger.save_dir=again"]
    return arguments if ckpt is None else [*arguments, "--ckpt_path", str(ckpt)]


def curves(folder: Path | str) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "curves.parquet").drop(columns="wall")


# ---------------------------------------------------------------------- what a run leaves


def test_run_is_one_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir() if not path.name.startswith("events")}
    expected = {"config.yaml", "curves.parquet", "summary.json", "outputs.safetensors", "checkpoint.ckpt", "figures"}
    assert expected <= names <= expected | {"tb", "hparams.yaml"}  # Lightning's own
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_of_the_output_that_goes_away_costs_nothing(
    run: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``fit ... | head -1``, or a pipe that nobody reads."""
    reading, writing = os.pipe()
    pipe, reader = os.fdopen(writing, "w", buffering=1), os.fdopen(reading)

    def read() -> None:
        with reader:
            for _ in range(lines):
                reader.readline()

    thread = threading.Thread(target=read)
    thread.start()
    if not lines:
        thread.join()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert main(again(run)) == 0
        print("said after the end")  # the stream can still be written to, and closed
    pipe.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    written = Path("again/digits_fc/version_0")
    names = {path.name for path in run.iterdir() if path.is_file() and not path.name.startswith("events")}
    assert names - {path.name for path in written.iterdir()} == set()
    assert curves(written).equals(curves(run))


def test_a_flipped_bit_in_the_arrays_is_found(run: Path, tmp_path: Path) -> None:
    """It leaves valid numbers, which a checksum alone tells from those that were written."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert len(load_runs(copy).curves.load())
    whole = bytearray((copy / "outputs.safetensors").read_bytes())
    whole[-3] ^= 1
    (copy / "outputs.safetensors").write_bytes(whole)
    with pytest.raises(DataError, match=r"outputs.safetensors cannot be read \(its arrays have the checksum"):
        load_runs(copy).outputs.load("test")

    column = ParquetFile(copy / "curves.parquet").metadata.row_group(0).column(4)
    begin = column.dictionary_page_offset or column.data_page_offset
    whole = bytearray((copy / "curves.parquet").read_bytes())
    whole[begin + column.total_compressed_size - 1] ^= 1
    (copy / "curves.parquet").write_bytes(whole)
    with pytest.raises(DataError, match=r"curves.parquet cannot be read \(.*CRC"):
        load_runs(copy).curves.load()


def test_saved_config_gives_the_same_run(run: Path) -> None:
    assert main(again(run)) == 0
    assert curves("again/digits_fc/version_0").equals(curves(run))


def test_saved_config_names_the_versions(run: Path) -> None:
    head = (run / "config.yaml").read_text().splitlines()[:2]
    assert head[0].startswith("# lazy-lightning==")
    assert head[1].startswith("# pytorch-lightning==")


def test_no_run_is_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "config.yaml").read_bytes()
    arguments = ["fit", "--config", str(run / "config.yaml"), "--trainer.logger.version=0"]
    assert "holds another run" in error_of(arguments, capsys)
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("option", ["--trainer.logger=false", "--trainer.fast_dev_run=true"])
def test_nothing_is_written_where_nobody_asked(option: str) -> None:
    assert main([*TINY, option]) == 0
    assert not list(Path.cwd().iterdir())


def test_default_root_dir_without_logger() -> None:
    assert main([*QUIET, "--trainer.default_root_dir=here"]) == 0
    assert {"config.yaml", "curves.parquet", "checkpoint.ckpt"} <= {path.name for path in Path("here").iterdir()}


def test_trainer_without_checkpoints_and_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    callbacks = built([*TINY, *options], monkeypatch).trainer.callbacks
    assert not [c for c in callbacks if isinstance(c, (Checkpoint, ProgressBar))]
    assert [c for c in callbacks if isinstance(c, Curves)]


# ---------------------------------------------------------------------- the other subcommands


def test_test_reports_what_the_fit_ended_with(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, float] = {}
    monkeypatch.setattr(FlowModule, "teardown", lambda self, stage: seen.update(self.trainer.callback_metrics))
    assert main(again(run, "test", run / "checkpoint.ckpt")) == 0
    for group in json.loads((run / "summary.json").read_text())["groups"]:
        for name in ("test/error", "test/loss", "test/ensemble_error"):
            assert float(seen[f"{name}/alpha={group['alpha']:g}"]) == pytest.approx(group["mean"][name], rel=1e-12)


def test_validate_tells_its_result(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training set is the same with a validation set beside it, which a finished run can so be given."""
    assert main([*again(run, "validate", run / "checkpoint.ckpt"), "--data.n_val=20"]) == 0
    assert "val/error/alpha=100" in capsys.readouterr().out
    assert "set data.n_val" in error_of(again(run, "validate", run / "checkpoint.ckpt"), capsys)


def test_predict_writes_the_outputs(run: Path) -> None:
    assert main(again(run, "predict", run / "checkpoint.ckpt")) == 0
    arrays = load_file("again/digits_fc/version_0/predictions.safetensors")
    assert arrays["outputs"].shape == (30, 4)
    assert arrays["outputs"].dtype == torch.float64
    wrong = (arrays["outputs"] * arrays["labels"][:, None] <= 0).double().mean(dim=0)
    members = json.loads((run / "summary.json").read_text())["members"]
    assert wrong.tolist() == pytest.approx([member["test/error"] for member in members])
    assert arrays["alpha"].tolist() == [member["alpha"] for member in members]
    assert arrays["seed"].tolist() == [member["seed"] for member in members]


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_subcommands_need_a_checkpoint(subcommand: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ckpt_path" in error_of(again(run, subcommand), capsys)


# ---------------------------------------------------------------------- resuming


def test_interrupted_run_goes_on_to_the_bit(run: Path) -> None:
    assert main([*TINY, "--trainer.max_steps=9", "--trainer.logger.save_dir=cut"]) == 0
    cut = Path("cut/digits_fc/version_0")
    assert len(curves(cut)) < len(curves(run))
    assert main([*again(cut, "fit", cut / "checkpoint.ckpt"), "--trainer.max_steps=-1"]) == 0
    assert curves("again/digits_fc/version_0").equals(curves(run))


def test_raised_limit_goes_on(run: Path) -> None:
    for option in ("t_max=0.02", "max_steps=40"):
        main([*TINY, f"--model.stop.{option}", "--trainer.logger.save_dir=cut"])
    for version in ("version_0", "version_1"):
        cut = Path("cut/digits_fc") / version
        options = ["--config", "overlays/tiny.yaml", "--model.stop.t_max=1e9"]
        assert main([*again(cut, "fit", cut / "checkpoint.ckpt"), *options]) == 0
        ended, whole = curves(Path("again/digits_fc") / version), curves(run)
        assert (ended["tried"].tail(4).to_numpy() == 60).all()
        if version == "version_1":  # landing on t_max shortens a step, a limit of steps changes nothing
            same = ["t", "dt", "accepted", "train/loss", "test/loss", "displacement/total", "tangent_departure"]
            assert ended[same].tail(4).equals(whole[same].tail(4).set_index(ended.tail(4).index))


def test_ended_run_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(again(run, "fit", run / "checkpoint.ckpt")) == 0
    assert "nothing was left to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.network.width=7", "does not fit this configuration"),
        ("--model.seeds=3", "members of alpha"),
        ("--data.n_train=41", "comes from 40 training samples, here are 41"),
        ("--trainer.precision=32-true", "expected torch.float32"),
    ],
)
def test_checkpoint_of_another_run(option: str, said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of([*again(run, "fit", run / "checkpoint.ckpt"), option], capsys)


def test_checkpoint_that_is_none(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}}, "other.ckpt")
    for path, said in (("no.ckpt", "there is no checkpoint"), ("other.ckpt", "not a checkpoint of a run")):
        assert said in error_of(again(run, "fit", Path(path)), capsys)
    assert "cannot be read" in error_of(again(run, "fit", run / "config.yaml"), capsys)


# ---------------------------------------------------------------------- observers


def test_observer_once_and_the_later_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = built([*TINY, "--config", "callbacks/full.yaml"], monkeypatch).trainer.callbacks
    for kind in (WeightDisplacement, T1, TangentDeparture, Curves):
        assert len([c for c in callbacks if type(c) is kind]) == 1
    assert next(c for c in callbacks if isinstance(c, TangentDeparture)).always


def test_preset_in_either_order_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = ["--config", "callbacks/tangent.yaml"]
    for arguments in ([*TINY, *preset], ["fit", *preset, *TINY[1:]]):
        callbacks = built(arguments, monkeypatch).trainer.callbacks
        assert next(c for c in callbacks if isinstance(c, TangentDeparture)).always
        assert [c for c in callbacks if isinstance(c, WeightDisplacement)]


def test_plain_list_that_drops_a_preset_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of([*TINY, "--config", str(CONF / "plain_callbacks.yaml")], capsys)
    assert "would drop WeightDisplacement of digits_fc.yaml" in said
    assert "callbacks+" in said


def test_callbacks_of_other_packages_may_repeat() -> None:
    twice = [EarlyStopping("a"), EarlyStopping("b")]
    assert single_observers([*twice, T1(), T1()])[:2] == twice
    assert len(single_observers([*twice, T1(), T1()])) == 3


# ---------------------------------------------------------------------- failures of a run


def test_all_members_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez("huge.npz", x=rng.normal(size=(80, 1, 4, 4)) * 1e200, y=np.arange(80) % 2)
    data = ["--data=ArrayFile", "--data.path=huge.npz", "--data.sphere=false", "--data.centre=false"]
    said = error_of([*QUIET, *data], capsys)
    assert "all 4 members failed" in said


def test_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert "cannot write file/runs" in error_of([*TINY, "--trainer.logger.save_dir=file/runs"], capsys)


def test_refused_run_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "asked for" in error_of([*TINY, "--data.n_train=5000"], capsys)
    assert not Path("runs").exists()


def test_download_without_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from urllib.error import URLError

    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    said = error_of(["fit", "--config", "mnist_parity_fc.yaml"], capsys)
    assert "MNIST could not be downloaded" in said
    assert "train-images-idx3-ubyte" in said


def test_out_of_memory_is_one_sentence() -> None:
    assert "chunk_size" in str(user_message(torch.OutOfMemoryError("CUDA out of memory")))


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: object) -> None:
        raise KeyError("a mistake in the program")

    monkeypatch.setattr(FlowModule, "training_step", wrong)
    with pytest.raises(KeyError, match="a mistake"):
        main(QUIET)


def test_debug_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZY_LIGHTNING_DEBUG", "1")
    with pytest.raises(ValueError, match="Union subtypes"):
        main([*QUIET, "--model.alhpa=3"])


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowModule, "training_step", interrupted)
    assert main(QUIET) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


# ---------------------------------------------------------------------- help


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--help"], "fit"),
        (["fit", "--help=all"], "--trainer.precision"),
        (["--version"], "torch"),
    ):
        assert main(arguments) == 0
        assert said in capsys.readouterr().out


def test_print_config_can_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*TINY, "--print_config"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert built(["fit", "--config", "printed.yaml"], monkeypatch).model.ensemble.alphas == (0.01, 0.01, 100.0, 100.0)


def test_program_in_a_process_of_its_own() -> None:
    arguments = [sys.executable, "-m", "lazy_lightning", "fit", "--config", "no_such.yaml"]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no configuration file no_such.yaml")
    assert done.stdout == ""


def test_short_help_names_keys_that_exist() -> None:
    allowed = {"model": FlowModule, "model.stop": StoppingCriteria, "data": Digits, "trainer": Trainer}
    for keys in short_help.KEYS.values():
        for key in keys:
            parent, _, name = key.removesuffix("+").rpartition(".")
            if parent in allowed:
                owners = allowed[parent].__mro__
                assert any(name in inspect.signature(owner.__init__).parameters for owner in owners), key


def test_help_of_a_class_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help", "FlowModule"]) == 0
    shown = capsys.readouterr().out
    assert "--model.alpha" in shown
    assert "lazy_lightning.nn.VGG" in shown
    assert "torch.nn.Identity" not in shown
    assert len(shown.splitlines()) < 190  # some five lines a key


AT_ONCE = {
    "--version": (0, f"lazy-lightning {__version__} (torch"),
    "--help": (0, "usage: lazy-lightning SUBCOMMAND"),
    "fit --help": (0, "--model.alpha"),
    "fitt": (2, "unknown subcommand fitt: did you mean fit?"),
    "": (2, "no subcommand"),
    "fit": (2, "no model and no data given"),
    "fit --config nope.yaml": (2, "there is no configuration file nope.yaml"),
    f"fit --config {CONF / 'not_yaml.yaml'}": (2, "line 3: this is not valid YAML"),
}


def test_help_and_mistakes_come_without_torch() -> None:
    """All in one process, which takes well under a second."""
    code = (
        "import sys; from lazy_lightning.cli import main\n"
        f"for line in {list(AT_ONCE)!r}:\n"
        "    print('code', main(line.split()), flush=True)\n"
        "print('imported', sorted({'torch', 'pandas', 'pytorch_lightning', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("code")] == [
        code for code, _ in AT_ONCE.values()
    ]
    for _, said in AT_ONCE.values():
        assert said in done.stdout + done.stderr
    assert done.stdout.endswith("imported []\n")
