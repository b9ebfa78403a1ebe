"""Atomic writes: a file of a run is there whole, or not at all, also after a kill or a power cut.

A file is written under a temporary name in the folder where it will stand, flushed to the disk, and renamed; then the
folder is flushed, too. Temporary names carry the host and the process, so that what a killed process has left can be
told from what another one is writing.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lazy_lightning.errors import RunError

_HOST = re.sub(r"[^0-9A-Za-z-]", "", socket.gethostname())[:40]
_TEMPORARY = re.compile(r"^\..+\.(?P<host>[0-9A-Za-z-]*)_(?P<process>\d+)_[0-9A-Za-z_]{8}(\.[^.]+)?$")
_OLD = r"^\.{stem}\.[0-9A-Za-z_]{{8}}{suffix}$"
"""Temporary names of version 0.1.0, which did not say whose they are."""
_SURELY_OLD = 24 * 3600.0
"""Seconds after which no process still writes a file: for names of other hosts, or of processes whose number is in use
again."""


@contextmanager
def written_atomically(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` to write to, flushes it to the disk, and renames it into place at the end.

    Args:
        path: of the file.
        exclusive: refuse to replace a file; of several processes that try, one succeeds.

    Raises:
        RunError: if the folder cannot be written or the disk is full; the old file, if any, is untouched.
        FileExistsError: ``exclusive``, and the file is there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.stem}.{_HOST}_{os.getpid()}_"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _explained(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp is private to the user, a result is not
        _flush(temporary)
        if exclusive:
            _link(temporary, path)
        else:
            temporary.replace(path)
        _flush_folder(path.parent)
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise _explained(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that fails may refuse this, too; the error above says more
            temporary.unlink(missing_ok=True)


def remove_stale_temporaries(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """Removes what killed processes have left half-written in a folder, and returns what that was.

    A file is removed if the process that wrote it ran on this host and has ended, or if it is a day old. Files that a
    living process is writing stay.

    Args:
        folder: whose files, not those of its subfolders.
        names: of files that version 0.1.0 wrote there, under temporary names that do not tell the process; these are
            removed if they are an hour old.
    """
    old = [re.compile(_OLD.format(stem=re.escape(Path(n).stem), suffix=re.escape(Path(n).suffix))) for n in names]
    removed = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and _is_stale(path, old):
            with contextlib.suppress(OSError):  # another process may be cleaning as well
                path.unlink()
                removed.append(path)
    return removed


def _is_stale(path: Path, old: list[re.Pattern[str]]) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:  # renamed into place meanwhile
        return False
    found = _TEMPORARY.match(path.name)
    if found is not None:
        ended = found["host"] == _HOST and not _is_alive(int(found["process"]))
        return ended or age > _SURELY_OLD
    return age > _SURELY_OLD / 24 and any(pattern.match(path.name) for pattern in old)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it is somebody else's
    return True


def _flush(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Waits until the folder's list of names is on the disk, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no flush of a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def _link(temporary: Path, path: Path) -> None:
    """Gives the file its name unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        temporary.replace(path)


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


def _explained(path: Path, error: OSError | SafetensorError) -> RunError:
    reason = (getattr(error, "strerror", None) or str(error)).strip()
    return RunError(
        f"cannot write {path} ({reason}): free space or make the folder writable, or choose another "
        "(--out FOLDER of a sweep or report, --trainer.logger.save_dir FOLDER of a run)"
    )
