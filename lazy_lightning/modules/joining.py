"""The start of a run on several ranks, until all have joined: a rank that is lost meanwhile ends the others.

Once the ranks are connected, each notices in its next exchange that another has ended. Before that it would wait for as
long as an exchange may take, half an hour by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed.rendezvous import rendezvous

from lazy_lightning.errors import RunError

LIMIT = 300.0
"""Seconds within which all ranks join: those of a cluster may have to wait for a slow file system."""
_LAUNCHER = "LAZY_LIGHTNING_LAUNCHER"
"""Variable with the process that has started this one as one of its ranks."""
_INTERVAL = 0.5
"""Seconds between looks for other processes."""
_RESUME = "start it again, or go on from the last checkpoint with fit --resume and the folder of the run"


def announce_launcher() -> None:
    """Lets the processes that this one starts know which process they depend on."""
    os.environ[_LAUNCHER] = str(os.getpid())


class JoinWatch:
    """Context in which this process ends if one that it depends on ends: its launcher, or a rank that it has started.

    It ends by ``os._exit``, because connecting to other ranks cannot be interrupted. A launcher is the process that
    started this one: the first rank, ``torchrun``, or SLURM. Nothing has been trained by then.

    Args:
        rank: of this process.
        count: of all ranks.
        started: the ranks that this process has started, in their order; not itself.
        launched: whether the first rank has started this process.
    """

    def __init__(
        self, rank: int, count: int, started: Sequence[subprocess.Popen[bytes]] = (), launched: bool = False
    ) -> None:
        self.rank, self.count, self._started = rank, count, started
        self._launched = launched and _LAUNCHER in os.environ
        self._launcher = int(os.environ[_LAUNCHER]) if self._launched else os.getppid()
        self._joined = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="join-watch", daemon=True)

    def __enter__(self) -> JoinWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._joined.set()
        self._thread.join()

    def loss(self) -> str | None:
        """Returns a sentence about a process that has ended, or None."""
        for i, process in enumerate(self._started):
            if process.poll() is not None:
                return self._sentence(f"rank {self.rank + 1 + i}")
        if os.getppid() != self._launcher:
            return self._sentence("rank 0" if self._launched else f"the launcher of rank {self.rank}")
        return None

    def _sentence(self, who: str) -> str:
        return f"{who} of {self.count} has ended before all ranks had joined, so the run stops: {_RESUME}"

    def _watch(self) -> None:
        while not self._joined.wait(_INTERVAL):
            sentence = self.loss()
            if sentence is not None and not self._joined.is_set():
                for process in self._started:
                    process.kill()
                sys.stdout.flush()
                print(f"error: {sentence}", file=sys.stderr, flush=True)
                os._exit(1)


def joined_store(rank: int, count: int, limit: float | None = None) -> object:
    """Connects to the store in which the ranks find each other, when all ranks have.

    Args:
        rank: of this process.
        count: of all ranks.
        limit: seconds to wait for the others; :data:`LIMIT` by default.

    Raises:
        RunError: a rank is missing after this time, or rank 0 has ended.
    """
    seconds = LIMIT if limit is None else limit
    try:
        store: object = next(rendezvous("env://", rank, count, timeout=timedelta(seconds=seconds)))[0]
    except RuntimeError as error:
        others = "rank 0" if rank else "rank 1" if count == 2 else f"one of the ranks 1 to {count - 1}"
        raise RunError(
            f"{others} of {count} has not joined rank {rank} within {seconds:g} s, or has ended (its own message is "
            f"above, if it left one), so the run stops: {_RESUME}"
        ) from error
    return store
