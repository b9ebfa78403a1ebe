"""The command line on several ranks: forked processes with the environment that torchrun or SLURM gives."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lazy_lightning.cli import main

_SECONDS = 240


def torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment of a process of ``torchrun``."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def slurm(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment of a task of ``srun`` on one node."""
    return {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "flow", "SLURM_NTASKS": str(count), "SLURM_PROCID": str(rank),
        "SLURM_NTASKS_PER_NODE": str(count), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NNODES": "1",
        "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def run_ranks(
    count: int,
    arguments: Sequence[str],
    log: Path,
    before: Callable[[int], None] = lambda rank: None,
    environment: Callable[[int, int, int], Mapping[str, str]] = torchrun,
) -> list[int | None]:
    """Exit codes of ``main(arguments)`` on ``count`` ranks; what rank K prints is in ``log``/K.

    Args:
        count: of processes.
        arguments: of the command line.
        log: a folder.
        before: called in each process first, with its rank.
        environment: variables of a process, by its rank, the number of processes, and a free port.
    """
    log.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    variables = [dict(environment(rank, count, port)) for rank in range(count)]
    targets = [(rank, variables[rank], list(arguments), log / str(rank), before) for rank in range(count)]
    processes = [context.Process(target=_rank, args=each) for each in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def _rank(
    rank: int, variables: Mapping[str, str], arguments: list[str], log: Path, before: Callable[[int], None]
) -> None:
    os.environ.update(variables)
    with log.open("w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        before(rank)
        code = main(arguments)
    sys.exit(code)
