"""Removes the folders of runs: all that are named are checked first, then renamed aside, then deleted."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from lazy_lightning.errors import DataError, RunError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs.run_folder import RunFolder

_MOST_LOOKED_AT = 100


def removable(paths: Sequence[Path]) -> list[Path]:
    """The folders that these paths name, each once, if every one is that of a run and may be removed.

    Raises:
        DataError: one is not the folder of a run, is a link, or holds the working folder.
        RunError: one may not be removed.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        require_run(path)
        if path.is_symlink():
            raise DataError(f"{printable(path)} is a link: remove what it leads to by its own name, or unlink it")
        real = path.resolve()
        if Path.cwd().is_relative_to(real):
            raise DataError(f"{printable(path)} is the working folder, or holds it: change to another folder first")
        if not os.access(real.parent, os.W_OK | os.X_OK) or not os.access(real, os.R_OK | os.W_OK | os.X_OK):
            raise RunError(f"{printable(path)} cannot be removed: there is no permission to write to it and its parent")
        found.setdefault(real, path)
    return list(found.values())


def require_run(path: Path) -> RunFolder:
    """The run of a folder.

    Raises:
        DataError: it is not one.
    """
    try:
        if RunFolder(path).is_run:
            return RunFolder(path)
        inside = _run_inside(path)
    except (OSError, ValueError) as error:  # a name that is too long, no permission, a NUL byte
        reason = printable(getattr(error, "strerror", None) or error)
        raise DataError(f"{_shortened(path)} is not the folder of a run ({reason})") from error
    hint = f"; there are runs in it, such as {printable(inside)}" if inside is not None else ""
    raise DataError(f"{_shortened(path)} is not the folder of a run{hint}: `runs list FOLDER` lists them")


def remove(paths: Sequence[Path]) -> None:
    """Removes what :func:`removable` has found: nothing if one of them cannot be renamed.

    Raises:
        RunError: nothing was removed; or what was renamed could not be deleted, in a hidden folder that is named.
    """
    aside: list[tuple[Path, Path]] = []
    for path in paths:
        real = path.resolve()
        hidden = real.with_name(f".removed-{uuid.uuid4().hex[:12]}")
        try:
            real.rename(hidden)
        except OSError as error:
            for before, after in reversed(aside):
                after.rename(before)
            raise RunError(f"{printable(path)} cannot be removed ({error.strerror}): nothing was removed") from error
        aside.append((real, hidden))
    left = []
    for _, hidden in aside:
        try:
            shutil.rmtree(hidden)
        except OSError as error:
            left.append(f"{printable(hidden)} ({error.strerror})")
    if left:
        raise RunError(f"the runs are no longer listed, but not all could be deleted: remove {', '.join(left)}")


def _run_inside(path: Path) -> Path | None:
    """A run directly in a folder, of the first hundred entries: a disk is not searched for a hint."""
    if not path.is_dir():
        return None
    with os.scandir(path) as entries:
        names = [entry.name for _, entry in zip(range(_MOST_LOOKED_AT), entries, strict=False)]
    for name in sorted(names):
        try:
            if RunFolder(path / name).is_run:
                return path / name
        except OSError:
            continue
    return None


def _shortened(path: Path) -> str:
    text = printable(path)
    return text if len(text) <= 200 else f"{text[:100]}... ({len(text)} characters)"
