"""Atomic writes: a file of a run is complete or does not exist, even after a kill or a power failure.

A file is written under a temporary name in its final folder, flushed to the disk, and renamed; then the folder is
flushed, too. Temporary names contain the host and the process, which distinguishes the files left by a killed process
from those that another process is writing.
"""

from __future__ import annotations

import contextlib
import functools
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
"""Pattern of the temporary names of version 0.1.0, which do not contain the process."""
_STALE_AGE = 24 * 3600.0
"""Seconds after which no process still writes a file; used for names of other hosts, and of processes whose number is
in use again."""


@contextmanager
def written_atomically(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path``; at the end flushes the file and renames it to ``path``.

    Args:
        path: the path of the file.
        exclusive: whether to refuse to replace a file; of several processes that try, one succeeds.

    Raises:
        RunError: the folder cannot be written or the disk is full; an old file is unchanged.
        FileExistsError: ``exclusive`` is true and the file exists.
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
        temporary.chmod(0o644)  # a file of mkstemp is readable only by its owner, but a result must be public
        _flush(temporary)
        if exclusive:
            _link(temporary, path)
        else:
            temporary.replace(path)
        _flush_folder(path.parent)
        _flush_parents(path.parent.absolute())
    except FileExistsError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise _explained(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # may fail on a failing disk as well; the error above is more specific
            temporary.unlink(missing_ok=True)


def remove_stale_temporaries(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """Removes the incomplete files that killed processes have left in a folder, and returns their paths.

    A file is removed if the process that wrote it ran on this host and has ended, or if it is a day old. Files of
    running processes are kept.

    Args:
        folder: the folder; its subfolders are not searched.
        names: names of files that version 0.1.0 wrote there under temporary names without the process; these are
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
        return ended or age > _STALE_AGE
    return age > _STALE_AGE / 24 and any(pattern.match(path.name) for pattern in old)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # on Windows, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # the process exists, but belongs to another user
    return True


def _flush(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Waits until the folder's list of names is on the disk, where the system supports it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not support it for folders
            os.fsync(handle)
    finally:
        os.close(handle)


@functools.lru_cache(maxsize=4096)
def _flush_parents(folder: Path) -> None:
    """Waits until the names of a new folder and of those above it are on the disk, once for each folder."""
    if folder.parent != folder:
        with contextlib.suppress(OSError):  # a folder above may not be readable
            _flush_folder(folder.parent)
        _flush_parents(folder.parent)


def _link(temporary: Path, path: Path) -> None:
    """Renames the temporary file unless ``path`` exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        temporary.replace(path)


def require_writable(folder: Path) -> None:
    """Checks before a run that its folder can be written, without creating the folder.

    Raises:
        RunError: the folder cannot be written.
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
