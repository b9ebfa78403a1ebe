"""Timing rivals in one process, in turn, so that a drift of the machine falls on all; and the files of results."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lazy_lightning.runs.atomic import written_atomically


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Wall time of one call, over ``repeats`` calls in a row with the device idle before and after."""
    _idle(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _idle(device)
    return (time.perf_counter() - start) / repeats


def in_turn(rivals: Sequence[Callable[[], object]], device: torch.device, budget: float = 2.0) -> list[list[float]]:
    """Rounds of the rivals A B A B ...: one list of times a rival, of about ``budget`` seconds, at least 7 rounds."""
    for work in rivals:
        seconds(work, 2, device)
    once = max(min(seconds(work, 1, device) for _ in range(3)) for work in rivals)
    repeats = max(1, int(0.02 / once))
    rounds = max(7, min(60, int(budget / (once * repeats))))
    times: list[list[float]] = [[] for _ in rivals]
    for _ in range(rounds):
        for work, kept in zip(rivals, times, strict=True):
            kept.append(seconds(work, repeats, device))
    return times


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of ours/theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def product_rate(dtype: torch.dtype, device: torch.device, size: int) -> float:
    """Operations a second of a square matrix product."""
    a = torch.randn(size, size, dtype=dtype, device=device)
    seconds(lambda: a @ a, 1, device)
    return 2 * size**3 / min(seconds(lambda: a @ a, 1, device) for _ in range(5))


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was."""
    import datetime
    import platform

    import lazy_lightning

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "processor": processor(),
        "lazy_lightning": lazy_lightning.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """The name of the CPU, with the number of its threads."""
    import platform

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} threads"


def save(result: object, path: Path | None) -> None:
    """Writes a result as JSON to a file, if one is given."""
    if path:
        with written_atomically(path) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


def output_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--out``, ``--resume`` and ``--seconds``."""
    parser.add_argument("--out", type=Path, help="a JSON file, written after each row")
    parser.add_argument("--resume", action="store_true", help="measure only the rows that are not in the file yet")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no row after this time")


class Rows:
    """The rows of a table, each printed and written as soon as it is measured.

    Args:
        options: of :func:`output_options`; with ``resume`` the rows in the file are kept if it was written on this
            machine with these versions.
        head: what stands beside the rows; the machine and its load, and what all rows share.
        keys: the columns that identify a row.
    """

    def __init__(self, options: argparse.Namespace, head: Mapping[str, Any], keys: Sequence[str]) -> None:
        self.path: Path | None = options.out
        self.head, self.keys = dict(head), tuple(keys)
        self.deadline = time.monotonic() + options.seconds
        self.rows: list[dict[str, Any]] = []
        if options.resume and self.path and self.path.is_file():
            earlier = json.loads(self.path.read_text())
            if all(earlier.get(key) == self.head[key] for key in self.head if key not in ("date", "load")):
                self.rows = earlier["rows"]
        self._given: set[tuple[Any, ...]] = set()

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in self.keys)

    def all_there(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether all of these have been measured."""
        return {self._key(row) for row in rows} <= {self._key(row) for row in self.rows}

    def add(self, row: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measures a row that is missing.

        Args:
            row: what identifies it.
            measure: its numbers.

        Raises:
            SystemExit: with code 3, if the time is over.
        """
        if self.all_there([row]):
            return
        if time.monotonic() > self.deadline:
            print("out of time before all rows are measured: the same command with --resume goes on", flush=True)
            raise SystemExit(3)
        found = {**row, **measure()}
        self.rows.append(found)
        shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items())
        print("  ".join(shown), flush=True)
        save({**self.head, "peak_mib": peak_mib_of_process(), "rows": self.rows}, self.path)


def peak_mib_of_process() -> float:
    """The largest resident memory of this process so far, in MiB."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def peak_mib(work: Callable[[], object], device: torch.device) -> float | None:
    """Memory in MiB that one call adds; None where the system does not report it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have freed goes back, or this one would use it again
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
        before = _status_kib("VmHWM")
        work()
        return (_status_kib("VmHWM") - before) / 1024
    except (OSError, StopIteration):
        return None


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def bandwidth(device: torch.device, size: int = 2**27) -> float:
    """Bytes a second of copying a large array, those read and those written."""
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    seconds(lambda: b.copy_(a), 1, device)
    return 2 * size / min(seconds(lambda: b.copy_(a), 1, device) for _ in range(5))


def _idle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
