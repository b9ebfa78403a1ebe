"""``lazy-lightning kernel`` as a user meets it: what it leaves, what goes on from there, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command_line import QUIET, TINY, built, error_of
from safetensors.torch import load_file

from lazy_lightning.callbacks import LearningCurves
from lazy_lightning.cli import main
from lazy_lightning.modules import KernelModule

pytestmark = pytest.mark.usefixtures("own_folder")

SMALL = [*TINY[1:], "--model.seeds=1", "--trainer.enable_progress_bar=false"]
KERNEL = ["kernel", *SMALL]
SILENT = ["kernel", *QUIET[1:], "--model.seeds=1"]


@pytest.fixture
def own_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which the first run has drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearningCurves, "on_train_end", lambda *args: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished flow on the initial kernel."""
    folder = tmp_path_factory.mktemp("kernel")
    assert main([*KERNEL, f"--trainer.logger.save_dir={folder}"]) == 0
    return folder / "digits_fc" / "version_0"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a finished fit of the same members."""
    folder = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningCurves, "on_train_end", lambda *args: None)
        assert main(["fit", *SMALL, f"--trainer.logger.save_dir={folder}"]) == 0
    return folder / "digits_fc" / "version_0" / "checkpoint.ckpt"


def again(run: Path, subcommand: str = "fit", ckpt: bool = True) -> list[str]:
    """A subcommand by what a run has left."""
    arguments = [subcommand, "--config", str(run / "config.yaml"), "--trainer.logger.save_dir=again"]
    return [*arguments, "--ckpt_path", str(run / "checkpoint.ckpt")] if ckpt else arguments


def curves(folder: Path | str) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "curves.parquet").drop(columns="wall")


def summary(folder: Path | str) -> dict:
    return json.loads((Path(folder) / "summary.json").read_text())


def options(folder: Path | str) -> dict:
    """The model's, as saved."""
    return yaml.safe_load((Path(folder) / "config.yaml").read_text())["model"]["init_args"]


AGAIN, HERE = Path("again/digits_fc/version_0"), Path("runs/digits_fc/version_0")


# ---------------------------------------------------------------------- what a run leaves


def test_run_is_one_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "curves.parquet", "summary.json", "checkpoint.ckpt", "figures"} <= names
    assert (run / "figures/learning_curves.png").stat().st_size > 10_000


def test_summary_tells_a_kernel(run: Path) -> None:
    told = summary(run)
    assert told["model"] == "flow on the tangent kernel at initialisation"
    assert [group["regime"] for group in told["groups"]] == ["kernel", "kernel"]
    lazy, feature = (group["mean"] for group in told["groups"])
    assert lazy["test/loss"] == pytest.approx(feature["test/loss"], rel=1e-9)


def test_closing_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SILENT) == 0
    shown = capsys.readouterr().out
    assert "flow on the tangent kernel at initialisation: 1068 weights a member" in shown
    assert "alpha = 100 followed a frozen kernel" in shown
    assert not list(Path.cwd().iterdir())


def test_saved_configuration_names_all_choices(run: Path) -> None:
    saved = options(run)
    assert {name: saved[name] for name in ("at", "checkpoint", "layers", "kernel_outputs")} == {
        "at": "init",
        "checkpoint": None,
        "layers": None,
        "kernel_outputs": "full",
    }


@pytest.mark.parametrize("subcommand", ["fit", "kernel"])
def test_saved_configuration_gives_the_same_run(run: Path, subcommand: str) -> None:
    assert main(again(run, subcommand, ckpt=False)) == 0
    assert curves(AGAIN).equals(curves(run))


def test_observers_of_the_network_do_not_disturb(run: Path) -> None:
    assert main([*KERNEL, "--config", "callbacks/full.yaml"]) == 0
    table = curves(HERE)
    assert not [name for name in table if name.startswith(("displacement", "activation", "tangent"))]
    same = list(set(table.columns) & set(curves(run).columns))
    assert table[same].equals(curves(run)[same])


# ---------------------------------------------------------------------- going on


def test_interrupted_run_goes_on_to_the_bit(run: Path) -> None:
    assert main([*KERNEL, "--trainer.max_steps=9", "--trainer.logger.save_dir=cut"]) == 0
    assert main([*again(Path("cut/digits_fc/version_0")), "--trainer.max_steps=-1"]) == 0
    assert curves(AGAIN).equals(curves(run))


def test_ended_run_says_so_and_goes_on_when_a_limit_is_raised(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(again(run)) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert main([*again(run), "--model.stop.max_steps=70"]) == 0
    assert (curves("again/digits_fc/version_1")["tried"].tail(2) == 70).all()


def test_tested_from_its_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, float] = {}
    monkeypatch.setattr(KernelModule, "teardown", lambda self, stage: seen.update(self.trainer.callback_metrics))
    assert main(again(run, "test")) == 0
    for group in summary(run)["groups"]:
        for name in ("test/error", "test/loss", "test/ensemble_error"):
            assert float(seen[f"{name}/alpha={group['alpha']:g}"]) == pytest.approx(group["mean"][name], rel=1e-12)


def test_validated_and_predicted_from_its_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*again(run, "validate"), "--data.n_val=20"]) == 0
    assert "val/error/alpha=100" in capsys.readouterr().out
    assert main(again(run, "predict")) == 0
    arrays = load_file("again/digits_fc/version_1/predictions.safetensors")
    assert arrays["outputs"].shape == (30, 2)
    wrong = (arrays["outputs"] * arrays["labels"][:, None] <= 0).double().mean(dim=0)
    assert wrong.tolist() == pytest.approx([member["test/error"] for member in summary(run)["members"]])


def test_tested_on_other_training_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of([*again(run, "test"), "--data.train_seed=1"], capsys)
    assert "the tangent kernel is another than the one that the checkpoint was trained on" in said
    assert "does not fit this configuration" in error_of([*again(run, "test"), "--data.n_train=41"], capsys)


# ---------------------------------------------------------------------- which kernel


def test_kernel_at_the_end_of_a_fit(network: Path, run: Path) -> None:
    assert main([*KERNEL, "--ckpt_path", str(network)]) == 0
    assert (options(HERE)["at"], options(HERE)["checkpoint"]) == ("end", str(network))
    assert summary(HERE)["model"] == f"flow on the tangent kernel at the end of {network}"
    feature, lazy = (group["mean"]["train/loss"] for group in summary(HERE)["groups"])
    assert feature < 0.95 * lazy  # from here on the outputs do depend on alpha: through the weights
    assert main(again(HERE, "test")) == 0
    assert main([*again(HERE), "--model.stop.max_steps=65"]) == 0


def test_kernel_at_the_start_of_a_fit(network: Path, run: Path) -> None:
    assert main([*KERNEL, "--at=init", "--ckpt_path", str(network)]) == 0
    assert curves(HERE).equals(curves(run))


def test_last_layer() -> None:
    assert main([*KERNEL, "--layers=last"]) == 0
    assert options(HERE)["layers"] == "last"
    assert summary(HERE)["model"] == "flow on the part of the last layer in the tangent kernel at initialisation"
    assert main(again(HERE, "test")) == 0


def test_some_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SILENT, "--layers=[hidden.0, head]"]) == 0
    assert "the part of layers hidden.0, head in the tangent kernel" in " ".join(capsys.readouterr().out.split())


def test_choices_of_an_earlier_kernel_flow_stay(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's configuration means under ``kernel`` what it means under ``fit``, but for what is given anew."""
    assert main([*KERNEL, "--layers=last", "--kernel_outputs=mean"]) == 0
    model = built(again(HERE, "kernel", ckpt=False), monkeypatch).model
    assert (model.at, model.layers, model.kernel_outputs) == ("init", "last", "mean")
    model = built([*again(HERE, "kernel", ckpt=False), "--layers=[head]", "--kernel_outputs=full"], monkeypatch).model
    assert (model.layers, model.kernel_outputs) == (["head"], "full")


def test_several_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for kind in ("full", "mean"):
        arguments = ["kernel", "--config", "digits_multiclass_fc.yaml", *SILENT[3:], f"--kernel_outputs={kind}"]
        assert main(arguments) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] != shown[1]


def test_first_order_network(run: Path) -> None:
    """Its kernel is that of the network."""
    inner = "{class_path: lazy_lightning.nn.FC, init_args: {width: 12, depth: 3, activation: softplus(5)}}"
    linear = f"{{class_path: lazy_lightning.nn.linearize.LinearizedNetwork, init_args: {{network: {inner}}}}}"
    assert main([*KERNEL, f"--model.network={linear}"]) == 0
    assert curves(HERE)["train/loss"].tolist() == pytest.approx(curves(run)["train/loss"].tolist(), rel=1e-9)


@pytest.mark.parametrize("name", ["digits_multiclass_fc.yaml", "teacher_student_flow.yaml"])
def test_experiments_have_their_kernel_flows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(built(["kernel", "--config", name], monkeypatch).model, KernelModule)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at=end"], "needs a run that has ended: fit first, then give its checkpoint.ckpt as --ckpt_path"),
        (["--at=middle"], "at is middle, expected init, end or null"),
        (["--kernel_outputs=all"], "kernel_outputs is all, expected full, mean or null"),
        (["--ckpt_path=none.ckpt"], "there is no checkpoint none.ckpt"),
        (["--layers=tail"], "layers names ['tail'], expected some of hidden.0, hidden.1, hidden.2, head, or last"),
        (["--model.alhpa=3"], "unknown key model.alhpa: did you mean alpha?"),
        (["--ayers=3"], "unknown option --ayers: did you mean --layers?"),
        (["--model=LightningModule"], "kernel freezes the tangent kernel of a FlowModule, but the model is"),
        (["--data.batch_size=5"], "the whole training set: leave it null"),
        (["--trainer.precision=bf16"], "trainer.precision is bf16, expected"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of([*SILENT, *arguments], capsys)


def test_wrong_options_end_with_2() -> None:
    assert main([*SILENT, "--at=end"]) == 2


def test_low_rank_needs_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    Path("endless.yaml").write_text("model: {init_args: {stop: {max_steps: null}}}")
    said = error_of([*SILENT, "--layers=last", "--config=endless.yaml"], capsys)
    assert "has rank 12 for 40 outputs, so all margins may never be met: set one of model.stop.t_max" in said


def test_checkpoint_of_other_members(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of([*SILENT, f"--ckpt_path={network}", "--model.seeds=2"], capsys)
    assert "holds members of alpha [0.01, 100.0] and seeds [0], other than this configuration's" in said


def test_checkpoint_of_another_network(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of([*SILENT, f"--ckpt_path={network}", "--model.network.width=13"], capsys)
    assert "holds weights of shape (2, 1068)" in said
    assert "give the config.yaml in its folder" in said


def test_checkpoint_of_a_kernel_flow(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is of a flow on a kernel, and has no trained network" in error_of(again(run, "kernel"), capsys)
    arguments = ["fit", *QUIET[1:], "--model.seeds=1", f"--ckpt_path={run}/checkpoint.ckpt"]
    assert "config.yaml" in error_of(arguments, capsys)


# ---------------------------------------------------------------------- help


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Integrates the same flow on the frozen tangent kernel" in shown
    for option in ("--at", "--layers", "--kernel_outputs", "--ckpt_path"):
        assert option in shown
    assert main(["--help"]) == 0
    assert "kernel" in capsys.readouterr().out


def test_print_config_can_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*KERNEL, "--layers=last", "--print_config"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    model = built(["kernel", "--config", "printed.yaml"], monkeypatch).model
    assert isinstance(model, KernelModule)
    assert model.layers == "last"


def test_options_of_kernel_are_not_those_of_fit(capsys: pytest.CaptureFixture[str]) -> None:
    said = "is an option of the subcommand kernel alone: leave it out here"
    assert main([*KERNEL, "--print_config"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert f"at {said}" in error_of(["fit", "--config", "printed.yaml"], capsys)
    assert f"layers {said}" in error_of([*QUIET, "--layers", "last"], capsys)
