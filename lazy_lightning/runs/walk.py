"""Search for the folders of runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lazy_lightning.plain_text import printable
from lazy_lightning.runs.run_folder import RunFolder

MOST_LEVELS = 64
Report = Callable[[str], None]
"""Function that is called with a message about each folder that could not be read."""


def _ignore(sentence: str) -> None:
    """Ignores a message about a folder that could not be read."""


def find_runs(root: Path, report: Report = _ignore) -> Iterator[Path]:
    """Yields the run folders in ``root`` or below it, each real folder once; the folders of runs are not searched.

    Real folders come first, in the order of their names. Links to folders are followed after them, except those to
    ``root``, to folders that contain it, and to visited folders.

    Args:
        root: the folder where the search starts.
        report: called with a message for each folder that cannot be read; the search continues.
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
                report(
                    f"{printable(path)} is skipped: its files have the names of a run's files, but not their content"
                )
            inside = _subfolders(path)
        except (OSError, ValueError) as error:
            report(f"{printable(path)} cannot be read ({_reason(error)}), and is skipped")
            continue
        if level >= MOST_LEVELS and inside:
            report(f"{printable(path)} is nested {level} folders deep; its subfolders are skipped")
            continue
        folders += [(p, level + 1) for p, is_link in reversed(inside) if not is_link]
        links += [(p, level + 1) for p, is_link in inside if is_link]


def _subfolders(path: Path) -> list[tuple[Path, bool]]:
    """Returns the subfolders of a folder, sorted by name and without hidden ones, and whether each is a link."""
    with os.scandir(path) as entries:
        found = [(path / e.name, e.is_symlink()) for e in entries if not e.name.startswith(".") and e.is_dir()]
    return sorted(found)


def _identities_above(root: Path) -> set[tuple[int, int]]:
    """Returns the device and inode numbers of ``root`` and of all folders that contain it."""
    try:
        real = root.resolve()
        return {(s.st_dev, s.st_ino) for s in (p.stat() for p in (real, *real.parents))}
    except (OSError, RuntimeError):
        return set()


def _reason(error: OSError | ValueError) -> str:
    return printable(getattr(error, "strerror", None) or error)
