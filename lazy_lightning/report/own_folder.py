"""Check of the folder of a report, which must be new, empty, or the folder of an earlier report."""

from __future__ import annotations

import re
from pathlib import Path

from lazy_lightning.errors import RunError
from lazy_lightning.plain_text import printable

PAGE = "index.html"
MARKER = ".lazy_lightning_report"
"""Name of the file that marks the folder of a report, written before all others."""
_EARLIER = re.compile(r"<title>Lazy training and feature learning: ")
"""Pattern at the head of the pages of version 0.1.0, which wrote no marker."""
_HEAD = 2000


def require_own_folder(folder: Path) -> None:
    """Checks before a report is drawn that its folder may be used, without writing to it.

    Raises:
        RunError: the folder holds files other than a report, or cannot be read.
    """
    try:
        if not folder.exists() or (folder / MARKER).is_file() or not any(folder.iterdir()) or _is_earlier(folder):
            return
    except (OSError, ValueError) as error:
        reason = printable(getattr(error, "strerror", None) or error)
        raise RunError(f"cannot write a report to {printable(folder)} ({reason}): choose another with --out") from error
    raise RunError(
        f"{printable(folder)} holds files that are not a report's, which would be overwritten: choose a new or empty "
        "folder with --out"
    )


def claim(folder: Path) -> None:
    """Marks a folder as that of a report.

    Raises:
        RunError: :func:`require_own_folder` raises, or the folder cannot be written.
    """
    require_own_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text("This folder is written by `lazy-lightning report`.\n", encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"cannot write {printable(folder)} ({error.strerror}): free space or make the folder writable, or choose "
            "another with --out"
        ) from error


def _is_earlier(folder: Path) -> bool:
    page = folder / PAGE
    if not page.is_file():
        return False
    with page.open(encoding="utf-8", errors="replace") as file:
        return _EARLIER.search(file.read(_HEAD)) is not None
