"""Each mistake that a user can make in a configuration, as the real parser tells it, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CONF, QUIET, error_of

from lazy_lightning.cli.messages import one_sentence
from lazy_lightning.errors import suggestion

OPTIONS = {
    "--model.alhpa=3": "unknown key model.alhpa: did you mean alpha?",
    "--model.init_args.alhpa=3": "unknown key model.alhpa: did you mean alpha?",
    "--model.stop.max_step=3": "unknown key model.stop.max_step: did you mean max_steps?",
    "--model.network.widht=3": "unknown key model.network.widht: did you mean width?",
    "--model.width=3": "unknown key model.width: the known keys are alpha, centering",
    "--data.n_trian=3": "unknown key data.n_trian: did you mean n_train?",
    "--trainer.presicion=3": "unknown option --trainer.presicion: did you mean --trainer.precision?",
    "--foo=1": "unknown option --foo: see lazy-lightning fit --help",
    "--model.alpha=abc": "model.alpha is abc, expected a number or a list of numbers",
    "--model.alpha=[1.0,x]": "model.alpha is [1.0, 'x'], expected a number or a list of numbers",
    "--model.network.width=ten": "model.network.width is ten, expected an integer",
    "--model.network.head=foo": "model.network.head is foo, expected ntk or mean_field",
    "--model.stop.max_steps=a": "model.stop.max_steps is a, expected an integer or null",
    "--model.network=nope.X": "model.network: the class nope.X cannot be imported (No module named 'nope')",
    "--model.network=lazy_lightning.nn.FCC": "has no attribute 'FCC'): did you mean FC?",
    "--model=FlowModul": "model: the class FlowModul cannot be imported: did you mean FlowModule?",
    "--model=torch.nn.Linear": "torch.nn.Linear is not a LightningModule, nor a function annotated to return one",
    "--data=Digit": "data: the class Digit cannot be imported: did you mean Digits?",
    "--data=nope.X": "data: the class nope.X cannot be imported (No module named 'nope')",
    "--trainer.callbacks+=Curve": "trainer.callbacks: the class Curve cannot be imported: did you mean Curves?",
    "--model.stop.t_max=null": "set it to null in a YAML file",
    "--model.loss=hing": "unknown loss 'hing', expected one of hinge,",
    "--model.controller=slide": "unknown step controller 'slide': choose one of gradient_change, reference",
    "--model.alpha=-1": "alpha must be > 0 and finite, got -1.0",
    "--model.seeds=0": "seeds is 0: give at least one",
    "--model.network.width=0": "width is 0, expected an integer >= 1",
    "--model.network.input_shape=3": "model.network.input_shape is 3, but the data determine it",
    "--data.batch_size=10": "data.batch_size is 10, but FlowModule follows the gradient of the whole",
    "--data.n_train=5000": "5030 samples are asked for, but the data has 1797",
    "--data.labels=odd": "labels must be 'parity', 'multiclass', ",
    "--data.labels={0: 1, 1: -1}": "labels gives no sign to the classes [2, 3",
    "--trainer.precision=16-mixed": "trainer.precision is 16-mixed, expected 64-true (the papers') or 32-true",
    "--trainer.precision=65-true": "trainer.precision is 65-true, expected 64-true (the papers') or 32-true",
    "--trainer.accelerator=gpuu": "invalid accelerator name",
    "--trainer.devices=2": "--trainer.strategy ddp",
    "--trainer.gradient_clip_val=1": "gradient clipping is not supported",
    "--ckpt_path=no.ckpt": "there is no checkpoint no.ckpt",
    "extra": "unexpected extra",
}


@pytest.mark.parametrize(("option", "said"), OPTIONS.items(), ids=list(OPTIONS))
def test_option(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    on_cpu = ["--trainer.accelerator=cpu"] if "devices" in option else []
    assert said in error_of([*QUIET, *on_cpu, option], capsys)


def test_gpu_without_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "there is no GPU" in error_of([*QUIET, "--trainer.accelerator=gpu"], capsys)


def test_loss_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    regression = [*QUIET, "--data=TeacherStudent", "--data.d=5"]
    assert "got a regression task" in error_of([*regression, "--model.loss=hinge"], capsys)
    assert "regression targets do not exist" in error_of(
        [*regression, "--model.loss=mse", "--model.stop.margin=1"], capsys
    )


FILES = {
    "modle: 3": "unknown key modle (own.yaml, line 1): did you mean model?",
    "trainer:\n  presicion: 3": "unknown key trainer.presicion (own.yaml, line 2): did you mean trainer.precision?",
    "model:\n  init_args:\n    network:\n      init_args: {widht: 10}": "model.network.widht (own.yaml, line 4)",
    "model:\n  init_args:\n    network:\n      init_args: {width: ten}": "model.network.width is ten",
    "data:\n  class_path: lazy_lightning.data.Digit": "did you mean Digits?",
    "trainer:\n  callbacks+:\n    - class_path: lazy_lightning.callbacks.T2": "T2 cannot be imported",
    "trainer:\n  callbacks+:\n    - class_path: T1\n      init_args: {every: 1}": "unknown key trainer.callbacks.every",
    "- 1": "own.yaml holds a list",
    "# nothing": "own.yaml holds no keys",
    "1: 2": "own.yaml has the key 1, expected names",
    "model: {class_path: 3}": "own.yaml: model.class_path is 3, expected the dotted name of a class",
    "data: {init_args: [1]}": "own.yaml: data.init_args is [1], expected keys and values",
    "model: {init_args: {alhpa: {}}}": "unknown key model.init_args.alhpa (own.yaml): it holds an empty mapping",
    "model: {init_args: {centering: null}}": "model.centering is null, expected true or false",
    "a: b: c": "own.yaml, line 1: this is not valid YAML",
}


@pytest.mark.parametrize(("text", "said"), FILES.items(), ids=range(len(FILES)))
def test_file(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(text + "\n")
    assert said in error_of([*QUIET, "--config", "own.yaml"], capsys)


def test_broken_file_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not_yaml.yaml, line 3: this is not valid YAML" in error_of(
        [*QUIET, "--config", str(CONF / "not_yaml.yaml")], capsys
    )


COMMANDS = {
    "": "no subcommand: start with lazy-lightning fit --config digits_fc.yaml",
    "fitt": "unknown subcommand fitt: did you mean fit?",
    "fit": "given: name a configuration, as in --config digits_fc.yaml; there are callbacks/",
    "fit --data Digits": "data needs n_train",
    "fit --config nope.yaml": "there is no configuration file nope.yaml: give the path of a YAML file, or one of",
    "fit --config digit_fc.yaml": "did you mean digits_fc.yaml?",
    "fit --config": "expected one argument",
    "--config digits_fc.yaml fit": "options and --config come after the subcommand",
    "predict --config digits_fc.yaml": "predict needs the checkpoint of a run",
}


@pytest.mark.parametrize(("line", "said"), COMMANDS.items(), ids=list(COMMANDS))
def test_command(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of(line.split(), capsys)


def test_unknown_text_is_kept_on_one_line() -> None:
    assert one_sentence("something\n  new ") == "something new"
    assert one_sentence('Parser key "a":\n  something\n  new') == "a: something new"


def test_suggestion_looks_among_siblings() -> None:
    known = ["--trainer.precision", "--trainer", "--model"]
    assert suggestion("--trainer.presicion", known) == ": did you mean --trainer.precision?"
    assert suggestion("--trainer.foo", known) == ""
