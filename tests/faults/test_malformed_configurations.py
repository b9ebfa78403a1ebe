"""Generated configurations that are wrong: each is refused in one sentence, runs nothing and ends at once."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from canary import canary
from command_line import QUIET, error_of
from configurations import KINDS, malformed_configurations

pytestmark = pytest.mark.usefixtures("own_folder")

COUNT = 108
LONGEST = 10.0  # seconds; most take a tenth of one


@pytest.fixture(autouse=True)
def nothing_called() -> Iterator[None]:
    with canary() as called:
        yield
    assert called == []
    assert not Path("touched").exists()


@pytest.mark.parametrize("part", range(4))
def test_none_is_accepted_or_ends_otherwise(part: int, capsys: pytest.CaptureFixture[str]) -> None:
    for case in list(malformed_configurations(COUNT))[part::4]:
        Path("own.yaml").write_bytes(case.content)
        start = time.monotonic()
        try:
            said = error_of([*QUIET, "--config", "own.yaml"], capsys)
        except BaseException as error:
            raise AssertionError(case.name) from error
        assert time.monotonic() - start < LONGEST, case.name
        assert len(said) < 2600, case.name


def test_the_generator_is_seeded_and_has_all_kinds() -> None:
    cases = list(malformed_configurations(300, seed=3))
    assert cases == list(malformed_configurations(300, seed=3))
    assert cases != list(malformed_configurations(300, seed=4))
    assert len({case.name for case in cases}) == 300
    assert collections.Counter(case.kind for case in cases) == dict.fromkeys(KINDS, 300 // len(KINDS))


def test_what_is_no_configuration_file(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("fifo")
    Path("folder").mkdir()
    Path("large").write_bytes(b"# \n" * (2 << 20))
    said = {
        "fifo": "a pipe",
        "folder": "a folder",
        "/dev/zero": "a device",
        "large": "larger than 4 MiB",
        "": "no conf",
    }
    for name, what in said.items():
        assert what in error_of([*QUIET, f"--config={name}"], capsys)
        assert what in error_of(["sweep", *QUIET[1:], f"--config={name}"], capsys)


def test_part_of_a_configuration_that_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A class may be given as the path of a YAML file, on the command line and inside of a file."""
    os.mkfifo("fifo")
    Path("bomb.yaml").write_text("a: &a [1]\nb: [" + "*a, " * 90_000 + "*a]")
    Path("evil.yaml").write_text("class_path: faults_canary.effect")
    Path("tag.yaml").write_text("class_path: !!python/name:os.system")
    for name in ("fifo", "-", "/dev/zero", "bomb.yaml", "evil.yaml", "tag.yaml"):
        error_of([*QUIET, f"--model.network={name}"], capsys)
        Path("own.yaml").write_text(f"model: {{init_args: {{network: '{name}'}}}}")
        error_of([*QUIET, "--config=own.yaml"], capsys)


def test_arguments_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    for value in (
        "[" * 5000 + "]" * 5000,
        "\udcff",
        "\0",
        "x" * 100_000,
        "!!int abc",
        "&a [*a]",
        "{a: 1, a: 2}",
        "%",
        "{",
    ):
        for key in ("alpha", "network"):
            error_of([*QUIET, f"--model.{key}={value}"], capsys)


SETTINGS = {
    "--model.dt=null": "model.dt is null, expected a number",
    "--model.controller=null": "controller",
    "--model.alpha=null": "model.alpha is null, expected a number or a list of numbers",
    "--model.alpha=[]": "alpha is []: give at least one",
    "--model.seeds=9223372036854775808": "seeds",
    "--model.seeds=[9223372036854775808]": "seed",
    "--data.labels=null": "data.labels is null",
    "--model.centering=null": "centering is null, expected true or false",
    "--model.network={class_path: lazy_lightning.nn.FC, dict_kwargs: {no_such: 1}}": "cannot be built by FC",
    "--seed_everything=-1": "seed_everything is -1, expected an integer from 0 to 4294967295",
    "--model.alpha=x\x1b[31m": "model.alpha is x\\x1b[31m, expected a number",
    "--model.help=NoSuch": "--model.help takes the name of a class, such as FlowModule",
}


@pytest.mark.parametrize(("option", "said"), SETTINGS.items(), ids=list(SETTINGS))
def test_settings_that_ended_in_tracebacks(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of([*QUIET, option], capsys)
