"""The documentation site: it is built strictly and offline, its tutorials run, its lists agree with the code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_runs import made_sweep

import lazy_lightning
import lazy_lightning.report

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = ("phase_diagram", "runs_in_pandas", "own_parts", "flow_and_kernel", "mini_batches", "integrators")
PACKAGES = ("modules", "flow", "nn", "ntk", "data", "callbacks", "runs", "report", "claims", "analysis")

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the tests do not lie in a checkout")


# ---------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: a broken link, a missing anchor or a page without a place is an error."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*src="(https?:[^"]*)"|<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]*)'
    )
    assert [(page.name, loaded.findall(page.read_text())) for page in pages if loaded.search(page.read_text())] == []
    assert (site / "search/search_index.js").stat().st_size > 100_000


def test_every_figure_links_to_its_image(site: Path) -> None:
    """Once each, also where the page has the link; figures of several panels scroll on narrow screens."""
    link = r'<a(?P<several> class="several-panels")? href="(?P<link>[^"]+)">'
    figure = re.compile(link + r'<img [^>]*src="(?P<image>[^"]+)"')
    several = set()
    for page in site.rglob("*.html"):
        text = page.read_text()
        found = [match.groupdict() for match in figure.finditer(text)]
        assert len(found) == text.count("<img "), page
        assert all(each["link"] == each["image"] and (page.parent / each["link"]).is_file() for each in found), page
        several |= {Path(each["image"]).name for each in found if each["several"]}
    assert {"digits_fc.png", "noise_plane.png"} <= several
    assert "loss_by_width.png" not in several


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    anchors = {
        anchor for page in (site / "api").glob("*.html") for anchor in re.findall(r'id="([\w.]+)"', page.read_text())
    }
    for package in PACKAGES:
        for name in importlib.import_module(f"lazy_lightning.{package}").__all__:
            assert any(a.startswith(f"lazy_lightning.{package}.") and a.endswith(f".{name}") for a in anchors), name


# ---------------------------------------------------------------------- tutorials


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working folder for all tutorials, since one reads the runs of another."""
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial_runs(name: str, folder: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a script; only the figures of the report are not drawn, which have tests of their own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(lazy_lightning.report, "write_report", drawn_nothing)
    if name == "runs_in_pandas" and not (folder / "runs/ball").is_dir():
        pytest.skip("it reads the runs of phase_diagram")
    dtype = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(DOCS / "tutorials" / f"{name}.py"), run_name="__main__")
    finally:
        torch.set_default_dtype(dtype)


def drawn_nothing(members: object, out: Path, **_options: object) -> lazy_lightning.report.Report:
    return lazy_lightning.report.Report(out / "index.html", [], {}, {})


def test_every_tutorial_is_run_and_has_a_page() -> None:
    assert {path.stem for path in (DOCS / "tutorials").glob("*.py")} == set(TUTORIALS)
    for name in TUTORIALS:
        assert f'--8<-- "tutorials/{name}.py"' in (DOCS / "tutorials" / f"{name}.md").read_text()


# ---------------------------------------------------------------------- lists


def test_messages_of_the_errors_page_are_those_of_the_code() -> None:
    sources = "\n".join(path.read_text() for path in Path(lazy_lightning.__file__).parent.rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    rows = re.findall(r"^\| (`.*?`(?: \.\.\. `.*?`)?) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`(.*?)`", row)]
    assert len(messages) > 20
    assert [message for message in messages if message not in joined] == []


def test_gallery_page_is_that_of_its_list() -> None:
    """`make gallery` writes it."""
    gallery = runpy.run_path(str(DOCS / "gallery/make_gallery.py"))
    assert (DOCS / "gallery.md").read_text() == gallery["page"]()
    for entry in gallery["entries"]():
        assert (DOCS / "gallery" / f"{entry.stem}.png").is_file()


def test_gallery_is_drawn_from_stored_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_sweep(tmp_path / "runs/claims/scaling", widths=(30, 100), scales=(0.1, 1.0, 10.0, 100.0), seeds=2)
    (tmp_path / "runs/teacher_plane").mkdir()
    gallery = runpy.run_path(str(DOCS / "gallery/make_gallery.py"))
    assert gallery["main"](["--root", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert (tmp_path / "kernel_drift.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "digits_fc: kept as it is, there are no runs in" in shown
    assert "neuron_paths: " in shown


def test_lower_bounds_are_read_from_every_dependency() -> None:
    """`make lower-bounds` turns name>=1.2 into name==1.2.*, and takes the newest of a dependency without a bound."""
    text = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'^  "([A-Za-z][\w.\[\]-]*)([^"]*)",  +#', text, re.MULTILINE)
    assert len(asked) >= 17
    assert [name for name, bound in asked if not re.match(r">=\d", bound) and not name.startswith("lazy")] == []
