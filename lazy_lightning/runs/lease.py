"""Lease of a folder on a shared file system: a file that its holder changes at intervals while it is alive.

File locks of the operating system are not seen by other machines on every shared file system (NFS and Lustre can be
mounted with local locks). A lease needs only reads, writes and the exclusive creation of a file. Whether its holder is
alive is decided by whether the file changes within a time that the reader measures by its own clock: clocks of several
machines are never compared, and host names and process numbers are not used to decide it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
import zlib
from functools import cache
from pathlib import Path

from lazy_lightning.plain_text import printable

BEAT = 5.0
"""Seconds between two changes of the file by its holder."""
PATIENCE = 30.0
"""Seconds without a change after which a holder on another machine counts as dead."""
_POLL_INTERVAL = 0.25

_log = logging.getLogger(__name__)


class Lease:
    """Lease in a file, taken by :meth:`acquire` and given back by :meth:`release`.

    Args:
        path: the file of the lease, in an existing folder.
        alone: whether the caller holds a lock of the operating system on a second file. That lock already excludes all
            other processes of this machine, so a lease that was left on this machine is replaced at once.
        beat: seconds between two changes of the file.
        patience: seconds without a change after which a holder on another machine counts as dead.
    """

    def __init__(self, path: Path, alone: bool = True, beat: float = BEAT, patience: float = PATIENCE) -> None:
        self._path, self._alone, self._beat, self._patience = path, alone, beat, patience
        self._token, self._machine = uuid.uuid4().hex, _machine()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> str | None:
        """Takes the lease and returns None, or returns the name of the machine of its living holder.

        Raises:
            OSError: the file cannot be read or written.
        """
        while not self._created(self._path):
            text = _content(self._path)
            if text is None:  # given back meanwhile
                continue
            left_here = self._alone and _field(text, "machine") == self._machine
            if not left_here and self._changes(text):
                return _field(text, "host") or "another machine"
            if self._replaced(text):
                break
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return None

    def release(self) -> None:
        """Gives the lease back: removes the file, unless another process has taken the lease over."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # the folder may have been removed
            self._remove_own()

    def _text(self, count: int) -> str:
        content = {
            "token": self._token,
            "machine": self._machine,
            "host": socket.gethostname(),
            "count": f"{count:012d}",
        }
        return json.dumps(content)  # always of the same length, because it is overwritten in place

    def _created(self, path: Path) -> bool:
        """Creates a file with the lease of this process, and returns whether it did not exist."""
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(self._text(0))
        return True

    def _changes(self, text: str) -> bool:
        """Returns whether the file changes, or is given back, within the time of a living holder's patience."""
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            time.sleep(min(_POLL_INTERVAL, self._patience))
            now = _content(self._path)
            if now is None:
                return False
            if now != text:
                return True
        return False

    def _replaced(self, text: str) -> bool:
        """Replaces the lease of a dead holder; of several processes that try, one succeeds.

        The right to replace this content is the exclusive creation of a second file. It is removed after the
        replacement, so a process that creates it later finds a lease of other content, and has not succeeded.
        """
        claim = self._path.with_name(f"{self._path.name}.{zlib.crc32(text.encode()):08x}")
        if not self._created(claim):
            if self._changes(text):
                return False
            claim.unlink(missing_ok=True)  # its process has died, too
            return False
        try:
            if _content(self._path) != text:
                return False
            claim.replace(self._path)
            return True
        finally:
            with contextlib.suppress(OSError):
                if _field(_content(claim) or "", "token") == self._token:
                    claim.unlink(missing_ok=True)

    def _remove_own(self) -> None:
        if _field(_content(self._path) or "", "token") == self._token:
            self._path.unlink(missing_ok=True)

    def _keep(self) -> None:
        count = 0
        while not self._ended.wait(self._beat):
            count += 1
            try:
                if not self._beaten(count):
                    return
            except OSError as error:  # a shared file system may be away for a while
                _log.info("the lease %s could not be renewed: %s", printable(self._path), error)

    def _beaten(self, count: int) -> bool:
        """Changes the file, and returns whether it still is the lease of this process."""
        text = _content(self._path)
        if text is None or (text and _field(text, "token") != self._token):
            _log.error(
                "another process has taken over %s, because this one did not renew it for %.0f s: stop one of the two",
                printable(self._path.parent),
                self._patience,
            )
            return False
        with self._path.open("r+") as file:
            file.write(self._text(count))
        return True


def _content(path: Path) -> str | None:
    """Returns the content of a file, or None if it does not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _field(text: str, name: str) -> str | None:
    """Returns a field of a lease; None if the text is not that of a lease."""
    try:
        value = json.loads(text).get(name)
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


@cache
def _machine() -> str:
    """Returns a name of the running kernel, which all processes that share its file locks have in common."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        boot = f"{uuid.getnode():x}"
    return f"{boot} {socket.gethostname()}"
