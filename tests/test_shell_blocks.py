"""Every command of the shell blocks in README.md and docs/ is parsed by the program; nothing is trained."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import TINY
from made_runs import made_sweep

import lazy_lightning.report
from lazy_lightning.cli import main, sweep_cli
from lazy_lightning.cli.bundled import find_config, read_config, resolve_configs
from lazy_lightning.cli.flow_cli import FlowCLI
from lazy_lightning.cli.resume import split_resume
from lazy_lightning.cli.sweep_cli import SweepCLI
from lazy_lightning.cli.user_messages import filter_warnings
from lazy_lightning.experiments.executor_spec import executor_spec
from lazy_lightning.experiments.sweep_spec import parse_sweep_spec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = shutil.which("bash")
LAUNCHERS = ("torchrun", "srun")
PROGRAMS = ("lazy-lightning", "python", "make", "tensorboard", *LAUNCHERS)
_STUBS = "\n".join(f'{name}() {{ printf "%s\\0" {name} "$@"; printf "\\n\\0"; }}' for name in PROGRAMS)

pytestmark = pytest.mark.skipif(SHELL is None, reason="no bash to read shell blocks with")


class Command(NamedTuple):
    """One program with its arguments, as the shell hands them over."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def fenced(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(page: str, block: str) -> list[Command]:
    """What a shell would start; loops, quotes and comments are the shell's own business."""
    script = f"set -eu\nPATH=\n{_STUBS}\n{block}"
    done = subprocess.run([str(SHELL), "-c", script], capture_output=True, text=True, check=True)
    calls = done.stdout.split("\0\n\0")
    return [Command(page, tuple(call.split("\0"))) for call in calls if call]


COMMANDS = [
    command
    for page in PAGES
    for language, text in fenced(page)
    if language == "bash" and SHELL is not None
    for command in commands_of(page.name, text)
]


def own_words(command: Command) -> list[str] | None:
    """The program's arguments, None of another program."""
    if command.words[0] == "lazy-lightning":
        return list(command.words[1:])
    if command.words[0] in LAUNCHERS:
        return list(command.words[command.words.index("lazy_lightning") + 1 :])
    return list(command.words[3:]) if command.words[:3] == ("python", "-m", "lazy_lightning") else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, no_figures: None) -> Path:
    """A working folder with what the blocks name: a run RUN, some folders of runs, an array file."""
    place = tmp_path_factory.mktemp("working")
    assert main([*TINY, f"--trainer.logger.save_dir={place / 'made'}", "--trainer.enable_progress_bar=false"]) == 0
    shutil.move(place / "made/digits_fc/version_0", place / "RUN")
    for name in (
        "runs/phase_diagram",
        "runs/phase_diagram_quick",
        "runs/cifar_vgg",
        "runs/learning_curve",
        "runs/learning_curve_small",
        "runs/noise_plane",
        "runs/initial_scale",
        "runs/population_sgd",
        "runs/kernel_spectra",
        "runs/coordinate_check",
        "runs/mine",
        "students",
    ):
        made_sweep(place / name, widths=(30,), scales=(1.0,), seeds=2)
    images = np.random.default_rng(0).integers(0, 255, (8, 3, 32, 32), np.uint8)
    np.savez(place / "my_images.npz", x=images, y=np.arange(8) % 2)
    np.savez(place / "my.npz", x=np.random.default_rng(0).standard_normal((20, 4)), y=np.arange(20) % 2)
    pd.DataFrame({"area": np.arange(20.0), "price": np.arange(20.0) ** 2}).to_csv(place / "houses.csv", index=False)
    return place


def test_there_are_commands() -> None:
    assert {command.page for command in COMMANDS} >= {"README.md", "experiments.md"}
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_are_marked_as_such(page: Path) -> None:
    """Else their commands would not be looked at."""
    for language, text in fenced(page):
        if language == "":
            assert not re.search(rf"^\s*(for \w+ in|{'|'.join(PROGRAMS)})\b", text, re.MULTILINE), text


@pytest.mark.parametrize("command", [c for c in COMMANDS if own_words(c) is not None], ids=str)
def test_command_is_parsed(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program's own parser, with every class imported; no network is built and nothing is run."""
    monkeypatch.chdir(folder)
    words = own_words(command) or []
    if words[0].startswith("-") or words[0] == "init":
        for written in ("my.yaml", "houses.yaml", "my_images.yaml"):
            Path(written).unlink(missing_ok=True)
        assert main(words) == 0
        return
    if "my.yaml" in words and not Path("my.yaml").exists():
        assert main(["init", "--data", "my.npz"]) == 0
    if words[0] in ("runs", "report"):
        monkeypatch.setattr(lazy_lightning.report, "write_report", drawn_nothing)
        assert main(words) == 0
        return
    filter_warnings()
    monkeypatch.setattr(FlowCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(FlowCLI, "after_instantiate_classes", lambda self: None)
    monkeypatch.setattr(FlowCLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr(SweepCLI, "_run_subcommand", families_alone)
    words, run = split_resume(words) if words[0] == "fit" else (words, None)
    resolved, _ = resolve_configs(words)
    cli: Any = SweepCLI(resolved) if words[0] == "sweep" else FlowCLI(resolved, run, resumed=run is not None)
    assert cli.config["subcommand"] == words[0]


def families_alone(cli: SweepCLI, subcommand: str) -> None:
    """The declaration of the sweep, and the configuration of its first family."""
    path = find_config(cli.config[subcommand]["sweep"])
    options = {name: cli.config[subcommand].pop(name) for name in sweep_cli._OPTIONS}
    declaration = parse_sweep_spec(read_config(path), path.stem)
    assert executor_spec(declaration.executor, {name: options[name] for name in sweep_cli._OF_EXECUTOR})
    base = yaml.safe_load(cli._subcommand_parsers[subcommand].dump(cli.config[subcommand], skip_none=False))
    assert cli.configured(base, next(iter(declaration.combinations())))


def drawn_nothing(members: Any, out: Path, **_options: object) -> lazy_lightning.report.Report:
    assert len(members)
    return lazy_lightning.report.Report(out / "index.html", [], {}, {})


@pytest.mark.parametrize("command", [c for c in COMMANDS if own_words(c) is None], ids=str)
def test_other_programs_are_there(command: Command) -> None:
    program, *words = command.words
    if program == "make":
        assert_target(words[0])
    else:
        assert program == "tensorboard"
        assert importlib.util.find_spec("tensorboard") is not None
        assert words[0] == "--logdir"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_named_in_the_text(page: Path) -> None:
    for target in re.findall(r"`make (\w+)`", page.read_text()):
        assert_target(target)


def assert_target(name: str) -> None:
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make has no target {name}"
