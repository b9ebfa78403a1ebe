"""Removal of run folders: all of them are checked first, then renamed to hidden names, then deleted."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from lazy_lightning.errors import DataError, RunError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs.run_folder import RunFolder

_MOST_ENTRIES = 100


def removable(paths: Sequence[Path]) -> list[Path]:
    """Returns the run folders at these paths, each once, after a check that all of them can be removed.

    Raises:
        DataError: a path is not the folder of a run, is a link, or contains the working folder.
        RunError: there is no permission to remove a folder.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        require_run(path)
        if path.is_symlink():
            raise DataError(f"{printable(path)} is a link: give the path of its target, or unlink it")
        real = path.resolve()
        if Path.cwd().is_relative_to(real):
            raise DataError(f"{printable(path)} is the working folder, or contains it: change to another folder first")
        if not os.access(real.parent, os.W_OK | os.X_OK) or not os.access(real, os.R_OK | os.W_OK | os.X_OK):
            raise RunError(f"{printable(path)} cannot be removed: there is no permission to write to it and its parent")
        found.setdefault(real, path)
    return list(found.values())


def require_run(path: Path) -> RunFolder:
    """Returns the run in a folder.

    Raises:
        DataError: the path is not the folder of a run.
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
    """Removes the folders that :func:`removable` has returned, or none if one of them cannot be renamed.

    Raises:
        RunError: nothing was removed, or a renamed folder could not be deleted; the message names the hidden folder.
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
    """Returns a run among the first hundred entries of a folder, as a hint for the error message, or None."""
    if not path.is_dir():
        return None
    with os.scandir(path) as entries:
        names = [entry.name for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False)]
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
