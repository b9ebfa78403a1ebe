"""What a wheel holds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lazy_lightning.cli.bundled import bundled_configs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the tests do not lie in a checkout")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(folder)]
    if importlib.util.find_spec("hatchling") is not None:
        command.append("--no-build-isolation")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stdout + done.stderr and not list(folder.iterdir()):
        pytest.skip("the build backend is neither installed nor within reach")
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_has_the_configurations(wheel: zipfile.ZipFile) -> None:
    prefix = "lazy_lightning/bundled/"
    inside = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    assert inside == {name if name.startswith("callbacks/") else f"configs/{name}" for name in bundled_configs()}


def test_wheel_has_what_is_not_python(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"lazy_lightning/py.typed", "lazy_lightning/figures/paper.mplstyle"} <= names
    assert {f"lazy_lightning/report/{name}" for name in ("page.css", "page.html.jinja", "elements.html.jinja")} <= names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_wheel_has_a_program(wheel: zipfile.ZipFile) -> None:
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert b"lazy-lightning = lazy_lightning.cli:main" in wheel.read(entry)
