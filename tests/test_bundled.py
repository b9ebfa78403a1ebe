"""Configurations by name, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazy_lightning.cli import bundled
from lazy_lightning.cli.bundled import bundled_configs, check_stack, find_config, resolve_configs
from lazy_lightning.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["digits_fc.yaml", "configs/digits_fc.yaml", "digits_fc", "callbacks/t1.yaml"])
def test_bundled_name_from_any_folder(name: str) -> None:
    assert find_config(name).is_file()


def test_a_file_in_the_working_folder_wins() -> None:
    Path("digits_fc.yaml").write_text("model: x")
    assert find_config("digits_fc.yaml") == Path("digits_fc.yaml")


def test_wrong_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"no_such\.yaml.*callbacks/full\.yaml.*digits_fc\.yaml"):
        find_config("no_such.yaml")


@pytest.mark.parametrize(
    "arguments", [["--config", "digits_fc.yaml"], ["--config=digits_fc.yaml"], ["-c", "digits_fc"]]
)
def test_arguments_are_resolved(arguments: list[str]) -> None:
    resolved, files = resolve_configs(["fit", *arguments, "--model.alpha", "3"])
    path = bundled_configs()["digits_fc.yaml"]
    assert files == [path]
    assert "=".join(resolved[1:-2]).endswith(f"={path}")
    assert resolved[-2:] == ["--model.alpha", "3"]


def test_every_bundled_file_has_a_comment() -> None:
    for name, path in bundled_configs().items():
        assert path.read_text().startswith("# "), name


def _trainer(**callbacks: object) -> dict[str, object]:
    return {"trainer": callbacks}


def test_stack() -> None:
    first = _trainer(**{"callbacks+": [{"class_path": "a.T1"}]})
    check_stack({"one": first, "two": first})
    check_stack({"one": first, "two": _trainer(callbacks=[{"class_path": "b.T1"}, {"class_path": "b.T2"}])})
    check_stack({"one": first, "two": _trainer(callbacks=[])})  # this is meant
    check_stack({"one": {}, "two": {"trainer": None}, "three": _trainer(callbacks="a.T1")})
    with pytest.raises(ConfigError, match="drop T1 of one"):
        check_stack({"one": first, "two": _trainer(callbacks=["T2"])})


def test_configs_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundled" / "configs").mkdir(parents=True)
    (tmp_path / "bundled" / "configs" / "x.yaml").touch()
    monkeypatch.setattr(bundled, "_CHECKOUT", tmp_path / "no_checkout")
    monkeypatch.setattr(bundled, "_INSTALLED", tmp_path / "bundled")
    assert list(bundled_configs()) == ["x.yaml"]
