"""Atomic writes: a file of a run is there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazy_lightning.errors import RunError


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, and renames it into place at the end.

    Raises:
        RunError: if the folder cannot be written or the disk is full; the old file, if any, is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _explained(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp is private to the user, a result is not
        temporary.replace(path)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Finds out before a run whether its folder can be written, and leaves no trace: the run may yet be refused.

    Raises:
        RunError: if it cannot.
    """
    try:
        present = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        with tempfile.TemporaryFile(dir=present):
            pass
    except OSError as error:
        raise _explained(folder, error) from error


def _explained(path: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot write {path} ({error.strerror or error}): free space or make the folder writable, or choose another "
        "(--out FOLDER of a sweep or report, --trainer.logger.save_dir FOLDER of a run)"
    )
