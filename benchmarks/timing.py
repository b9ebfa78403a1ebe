"""Timing two rivals in one process: in turn, so that a drift of the machine falls on both."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch


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


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers were measured on."""
    import datetime
    import platform

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def save(result: object, path: Path | None) -> None:
    """Writes a result as JSON to a file, if one is given."""
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def _idle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
