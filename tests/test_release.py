"""Version, changelog and citation agree, and the changelog has the form of Keep a Changelog."""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import lazy_lightning

ROOT = Path(__file__).parents[1]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
RELEASE = re.compile(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})$")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the tests do not lie in a checkout")


def changelog() -> list[str]:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


def releases() -> list[tuple[tuple[int, ...], datetime.date]]:
    found = [RELEASE.match(line) for line in changelog()]
    return [(tuple(map(int, m.groups()[:3])), datetime.date.fromisoformat(m[4])) for m in found if m is not None]


def citation() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")))


def test_newest_release_is_the_version_of_package_and_citation() -> None:
    version, date = releases()[0]
    assert lazy_lightning.__version__ == ".".join(map(str, version)) == citation()["version"]
    assert citation()["date-released"] == date
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "lazy_lightning/__init__.py"


def test_releases_descend_and_every_second_heading_is_one() -> None:
    headings = [line for line in changelog() if line.startswith("## ") and line != "## [Unreleased]"]
    assert [line for line in headings if not RELEASE.match(line)] == []
    assert releases() == sorted(releases(), reverse=True)
    assert len({version for version, _ in releases()}) == len(releases())


def test_changes_are_sorted_by_kind() -> None:
    """At most one section of each kind in a release, in the order of the format, none empty."""
    for release in "\n".join(changelog()).split("\n## ")[1:]:
        kinds = re.findall(r"^### (.*)$", release, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds], release.splitlines()[0]
        for section in release.split("\n### ")[1:]:
            assert re.search(r"^\* ", section, re.MULTILINE), section.splitlines()[0]
