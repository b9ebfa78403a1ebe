"""Imports run one way: which package may use which, and that old names still work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazy_lightning import deprecations

PACKAGE = Path(deprecations.__file__).parent
DRAWINGS = PACKAGE.parent / "docs" / "drawings"
LAYERS = (
    {"errors", "plain_text", "denormals", "deprecations", "heap"},
    {"argument_types", "seeding", "memory"},
    {"analysis", "flow", "nn"},
    {"objective", "runs"},
    {"ntk"},
    {"data", "figures"},
    {"modules", "report", "claims"},
    {"callbacks", "experiments"},
    {"cli"},
)
"""From below to above: a room may import what stands in lower rows alone. This is the drawing in docs/design.md."""
HEIGHT = {name: height for height, row in enumerate(LAYERS) for name in row}


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Each module of this package that a file imports, with the imported name; not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        else:
            yield from imports(node)


def room(module: str, name: str | None = None) -> str | None:
    """The part of the package in which a module lies; None for the package itself."""
    parts = [*module.split("."), *([name] if name is not None else [])]
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else None


def edges() -> set[tuple[str, str, str]]:
    """(room, room that it imports, file) for all files."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for module, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            other = room(module, name)
            if other is not None and other != own and own not in ("__init__", "__main__"):
                found.add((own, other, str(path.relative_to(PACKAGE))))
    return found


def drawn_arrows() -> set[tuple[str, str]]:
    """The arrows of the drawing in docs/design.md, (package, package that it imports)."""
    titles = re.findall(r"<title>(\w+)&#45;&gt;(\w+)</title>", (DRAWINGS / "packages.svg").read_text(encoding="utf-8"))
    return set(titles)


def below(name: str, arrows: set[tuple[str, str]]) -> set[str]:
    """All packages that can be reached from one by arrows."""
    return {reached for own, other in arrows if own == name for reached in {other} | below(other, arrows)}


def test_the_drawing_is_that_of_its_source() -> None:
    source = (DRAWINGS / "packages.dot").read_text(encoding="utf-8")
    arrows = re.findall(r"^  (\w+) -> \{?([\w ]+)\}?;$", source, re.MULTILINE)
    assert {(own, other) for own, others in arrows for other in others.split()} == drawn_arrows()


def test_the_drawing_has_the_imports_of_the_code() -> None:
    arrows = drawn_arrows()
    drawn = {name for arrow in arrows for name in arrow}
    imported = {(own, other) for own, other, _ in edges() if other in drawn}
    assert drawn == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert arrows <= imported
    assert [edge for edge in sorted(imported) if edge[1] not in below(edge[0], arrows)] == []


def test_every_room_has_its_height() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there - {"__init__", "__main__"} == set(HEIGHT)


def test_the_top_level_has_the_modules_of_the_two_lowest_layers() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    low, upper = LAYERS[:2]
    assert modules == low | upper


def test_rooms_import_what_stands_below_them() -> None:
    """So there are no circles."""
    assert [edge for edge in sorted(edges()) if HEIGHT[edge[1]] >= HEIGHT[edge[0]]] == []


@pytest.mark.parametrize("own", sorted({"flow", "nn", "ntk", "objective"}))
def test_the_numerics_know_nothing_of_lightning(own: str) -> None:
    for path in (PACKAGE / own).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pytorch_lightning" not in text, path
        assert "from pytorch_lightning" not in text, path


def test_the_run_store_does_not_import_torch() -> None:
    code = "import sys; from lazy_lightning import load_runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


# ---------------------------------------------------------------------- names of version 0.1.0


PACKAGES = ("lazy_lightning", *(f"lazy_lightning.{name}" for name in ("callbacks", "experiments", "flow", "modules")))


@pytest.mark.parametrize("old", [old for old in deprecations.NAMES if old.rpartition(".")[0] in PACKAGES])
def test_an_old_name_works_and_warns(old: str) -> None:
    home, _, name = old.rpartition(".")
    module = __import__(home, fromlist=["x"])
    with pytest.warns(DeprecationWarning, match="use lazy_lightning"):
        found = getattr(module, name)
    where, _, present = deprecations.NAMES[old].rpartition(".")
    assert found is getattr(__import__(where, fromlist=["x"]), present)


@pytest.mark.parametrize("old", deprecations.MODULES)
def test_an_old_module_works_and_warns(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match="import lazy_lightning"):
        module = __import__(old, fromlist=["x"])
    assert vars(module)["__spec__"].name == old


def test_an_old_class_is_found_in_its_old_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lazy_lightning.modules.scaled_module", raising=False)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        from lazy_lightning.modules.scaled_module import ScaledModule
    assert ScaledModule.__name__ == "MiniBatchModule"


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    import lazy_lightning.modules

    with pytest.raises(AttributeError, match="Nothing"):
        _ = lazy_lightning.modules.Nothing


def test_old_and_present_names_are_one_configuration() -> None:
    old = {
        "model": {
            "class_path": "lazy_lightning.modules.ScaledModule",
            "init_args": {
                "controller": "slides",
                "loss": {"class_path": "lazy_lightning.losses.SoftHinge", "init_args": {"beta": 5.0}},
                "lr_scheduler": {"class_path": "lazy_lightning.inverse_decay.InverseDecay"},
            },
        },
        "trainer": {"callbacks": [{"class_path": "lazy_lightning.callbacks.Outputs"}]},
    }
    present = deprecations.present_names(old)
    model = present["model"]["init_args"]
    assert present["model"]["class_path"] == "lazy_lightning.modules.MiniBatchModule"
    assert model["controller"] == "gradient_change"
    assert model["loss"]["class_path"] == "lazy_lightning.objective.losses.SoftHinge"
    assert present["trainer"]["callbacks"] == [{"class_path": "lazy_lightning.callbacks.OutputsWriter"}]
    assert deprecations.names_of_0_1_0(present) == old
