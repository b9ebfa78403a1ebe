"""Benchmarks as parts of a whole: each in a process of its own under a time limit, and its rows as tables."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Part = dict[str, Any]


def run(command: list[str], limit: float, **environment: str) -> tuple[int | None, str, float]:
    """Exit code (None: out of time), output, seconds."""
    start = time.perf_counter()
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **environment}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=variables, cwd=ROOT, check=False
        )
        return done.returncode, done.stdout + done.stderr, time.perf_counter() - start
    except subprocess.TimeoutExpired as error:
        parts = (part.decode() if isinstance(part, bytes) else part or "" for part in (error.stdout, error.stderr))
        return None, "".join(parts), time.perf_counter() - start


def outcome(code: int | None, output: str, seconds: float) -> Part:
    """How a part ended, with the end of its output if it failed."""
    ended = {0: "passed", None: "out of time"}.get(code, f"exit code {code}")
    return {"outcome": ended, "seconds": round(seconds, 1), **({"output": output[-3000:]} if code != 0 else {})}


def tables(part: Part) -> list[str]:
    """The tables of a part: its numbers in a line, its rows, and those of what it is made of."""
    rows = part.get("rows")
    plain = {k: v for k, v in part.items() if not isinstance(v, list | dict) and k != "output"}
    found: list[str] = [", ".join(f"{key} {value}" for key, value in plain.items())] if plain else []
    if rows:
        found.append(table(rows))
    for key, value in part.items():
        if isinstance(value, dict):
            found += [f"### {key}", *tables(value)]
        elif key == "failed" and value:
            found.append("failed: " + ", ".join(value))
    return found


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as a Markdown table; without ``columns``, of all that occur."""
    rows = list(rows)
    shown = columns or list(dict.fromkeys(key for row in rows for key in row))
    lines = [[_cell(row.get(key)) for key in shown] for row in rows]
    return "\n".join(_line(cells) for cells in [list(shown), ["---"] * len(shown), *lines])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
