"""Description of the runs of a report in one paragraph."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.figures.marks import plain
from lazy_lightning.figures.scale import span_words
from lazy_lightning.figures.sweep_table import KERNEL_AT_END, KERNEL_AT_INIT, NETWORK, sorted_widths
from lazy_lightning.report.settings import format_value
from lazy_lightning.runs.run_files import CONFIG

_LIBRARIES = ("lazy-lightning", "torch", "pytorch-lightning", "numpy")
_KERNELS = {KERNEL_AT_INIT: "at initialisation", KERNEL_AT_END: "at the end of training"}
_MOST_NAMED = 8


def subject(runs: pd.DataFrame) -> str:
    """Returns the names of networks and data in the table, such as ``FC on Digits``."""
    networks, data = _named(runs, "model.network") or "Networks", _named(runs, "data")
    return f"{networks} on {data}" if data else networks


def account(runs: pd.DataFrame) -> str:
    """Describes the number of members, their widths, alphas and seeds, how they ended, and the time of the runs."""
    return " ".join(part for part in (_members(runs), _swept(runs), _ended(runs), _took(runs)) if part)


def versions(runs: pd.DataFrame, when: datetime) -> str:
    """Returns the time and versions with which the page was written, and the versions in the runs' configurations."""
    here = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES if _installed(name))
    then = sorted({pair for path in runs["path"].unique() for pair in _stated_versions(Path(str(path)))})
    made = ", ".join(f"{name} {version}" for name, version in then)
    written = f"Written on {when:%Y-%m-%d} at {when:%H:%M %Z} with {here}."
    return f"{written} The runs were made with {made}." if made else written


def listed(values: Sequence[str]) -> str:
    """Joins values as ``a, b and c``; a long list is replaced by its number of values and its ends.

    >>> listed(["30", "100", "300"])
    '30, 100 and 300'
    """
    if len(values) > _MOST_NAMED:
        return f"{len(values)} values from {values[0]} to {values[-1]}"
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _members(runs: pd.DataFrame) -> str:
    counts = runs["model"].value_counts()
    networks = int(counts.get(NETWORK, 0))
    parts = [_counted(networks, "network")] * bool(networks)
    for name, n in counts.items():
        if name in _KERNELS:
            parts.append(f"{_counted(int(n), 'flow')} of frozen kernels {_KERNELS[str(name)]}")
        elif name != NETWORK:
            parts.append(f"{n} {name}")
    return f"{listed(parts)}, in {_counted(runs['path'].nunique(), 'run')}:"


def _swept(runs: pd.DataFrame) -> str:
    widths = [f"{h:g}" for h in sorted_widths(runs) if h == h]
    alphas = [plain(alpha) for alpha in sorted(runs["alpha"].unique())]
    parts = [f"h = {listed(widths)}"] if widths else []
    scales = sorted(runs["sqrt_h_alpha"].dropna().astype(float)) if "sqrt_h_alpha" in runs else []
    span = f" ({span_words(scales[0], scales[-1])})" if scales else ""
    parts.append(
        f"alpha = {listed(alphas)}{span}" if len(alphas) <= _MOST_NAMED else f"{listed(alphas)} of alpha{span}"
    )
    return f"{', '.join(parts)}, {_counted(runs['seed'].nunique(), 'seed')}."


def _ended(runs: pd.DataFrame) -> str:
    counts = runs["status"].value_counts()
    failed, unfinished = (int(counts.get(name, 0)) for name in ("failed", "unfinished"))
    if not failed + unfinished:
        return "All have finished."
    parts = [f"{int(counts.get('finished', 0))} have finished", f"{failed} failed"]
    return listed(parts + [f"{unfinished} are unfinished (still running, or interrupted)"] * bool(unfinished)) + "."


def _took(runs: pd.DataFrame) -> str:
    if "wall_seconds" not in runs:
        return ""
    walls = runs.drop_duplicates("path")["wall_seconds"].dropna().astype(float)
    return f"The runs took {duration(float(walls.sum()))} in all." if len(walls) else ""


def _named(runs: pd.DataFrame, column: str) -> str:
    names = sorted({format_value(value) for value in runs[column].dropna()}) if column in runs else []
    return listed(names) if names else ""


def _counted(n: int, name: str) -> str:
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _stated_versions(folder: Path) -> list[tuple[str, str]]:
    """Returns the versions at the head of a run's configuration, written as ``# torch==2.11``."""
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except OSError:
        return []
    return re.findall(r"^# ([\w.-]+)==([\w.+!-]+)$", text, flags=re.MULTILINE)
