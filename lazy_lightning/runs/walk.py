"""Looks for the folders of runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lazy_lightning.plain_text import printable
from lazy_lightning.runs.run_folder import RunFolder

MOST_LEVELS = 64
Report = Callable[[str], None]
"""Is given one sentence on what could not be read."""


def _ignore(sentence: str) -> None:
    """Drops the sentence: who only looks for one run need not say what else is unreadable."""


def find_runs(root: Path, report: Report = _ignore) -> Iterator[Path]:
    """The run folders at or under ``root``, each real folder once; runs are not looked for within runs.

    Real folders come first, in the order of their names; links to folders are followed after them, except those that
    lead to ``root`` or above it, and those to what has been visited.

    Args:
        root: a folder.
        report: is called with a sentence for each folder that cannot be read; the others go on.
    """
    above = _identities_above(root)
    visited: set[tuple[int, int]] = set()
    folders, links = [(root, 0)], list[tuple[Path, int]]()
    while folders or links:
        path, level = folders.pop() if folders else links.pop(0)
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in visited or (level and identity in above):
                continue
            visited.add(identity)
            if RunFolder(path).is_run:
                yield path
                continue
            if RunFolder(path).has_traces:
                report(f"{printable(path)} is passed over: its files have the names of a run's, but are not one's")
            inside = _subfolders(path)
        except (OSError, ValueError) as error:
            report(f"{printable(path)} cannot be read ({_reason(error)}), and is passed over")
            continue
        if level >= MOST_LEVELS and inside:
            report(f"{printable(path)} is nested {level} folders deep; what is in it is not looked at")
            continue
        folders += [(p, level + 1) for p, is_link in reversed(inside) if not is_link]
        links += [(p, level + 1) for p, is_link in inside if is_link]


def _subfolders(path: Path) -> list[tuple[Path, bool]]:
    """The folders in a folder and whether each is a link, by name, without hidden ones."""
    with os.scandir(path) as entries:
        found = [(path / e.name, e.is_symlink()) for e in entries if not e.name.startswith(".") and e.is_dir()]
    return sorted(found)


def _identities_above(root: Path) -> set[tuple[int, int]]:
    """Of ``root`` and all folders that it lies in."""
    try:
        real = root.resolve()
        return {(s.st_dev, s.st_ino) for s in (p.stat() for p in (real, *real.parents))}
    except (OSError, RuntimeError):
        return set()


def _reason(error: OSError | ValueError) -> str:
    return printable(getattr(error, "strerror", None) or error)
