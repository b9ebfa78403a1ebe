"""Runs of the command line on several ranks: forked processes with the environment that torchrun gives."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lazy_lightning.cli import main

_SECONDS = 240


def run_ranks(
    count: int, arguments: Sequence[str], log: Path, before: Callable[[int], None] = lambda rank: None
) -> list[int | None]:
    """Exit codes of ``main(arguments)`` on ``count`` ranks; what rank K prints is in ``log``/K.

    Args:
        count: of processes.
        arguments: of the command line.
        log: a folder.
        before: called in each process first, with its rank.
    """
    log.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    targets = [(rank, count, port, list(arguments), log / str(rank), before) for rank in range(count)]
    processes = [context.Process(target=_rank, args=each) for each in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def _rank(rank: int, count: int, port: int, arguments: list[str], log: Path, before: Callable[[int], None]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    with log.open("w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        before(rank)
        code = main(arguments)
    sys.exit(code)
