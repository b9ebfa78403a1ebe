"""What a wheel holds."""

from __future__ import annotations

import importlib.util
import os
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


PROGRAM = """
import sys
from pathlib import Path
import lazy_lightning
from lazy_lightning.cli import main

assert Path(lazy_lightning.__file__).is_relative_to(sys.argv[1]), lazy_lightning.__file__
tiny = ["--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml", "--model.stop.max_steps=2"]
Path("few.yaml").write_text(
    "trainer: {callbacks+: [{class_path: DisableCallbacks, init_args: {names: [LearningCurves, ActivationDrift]}}]}"
)
tiny += ["--config", "few.yaml"]
assert main(["fit", *tiny, "--trainer.enable_progress_bar=false"]) == 0
Path("sweep.yaml").write_text("{name: small, grid: {model.network.width: [6], alpha: [1, 10], seeds: 2}}")
assert main(["sweep", *tiny, "--sweep", "sweep.yaml", "--workers", "0"]) == 0
assert main(["report", "runs/small", "--out", "report"]) == 0
"""


@pytest.mark.slow
def test_the_wheel_fits_sweeps_and_reports_from_another_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """With what the wheel contains and nothing of the checkout; the dependencies are those of this environment."""
    wheel.extractall(tmp_path / "installed")
    place = tmp_path / "place"
    place.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "installed")]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "runs/digits_fc/version_0/summary.json").is_file()
    assert (place / "report/index.html").is_file()
