"""Docstrings of the package: at least four words, so that each is a statement by itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import lazy_lightning

ROOT = Path(lazy_lightning.__file__).parent


def short_docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text is not None and len(text.split()) < 4:
                yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}: {text}"


def test_no_docstring_has_fewer_than_four_words() -> None:
    assert [found for path in sorted(ROOT.rglob("*.py")) for found in short_docstrings(path)] == []
