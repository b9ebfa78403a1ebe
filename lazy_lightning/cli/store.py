"""``runs`` and ``report``: what there is, and what it says. Neither builds a network."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
from rich.console import Console
from rich.table import Table

from lazy_lightning.atomic import written_atomically
from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.experiments.run_folder import RunFolder, Status, find_runs
from lazy_lightning.experiments.runs import load_runs

COMMANDS = {
    "report": "every figure that the runs in some folders support, as files and as one page",
    "runs": "lists, shows, removes and exports runs",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; --help shows what there is")


def report(args: Sequence[str]) -> int:
    """``report RUNS... --out FOLDER``."""
    parser = _Parser("lazy-lightning report", description=f"Draws {COMMANDS['report']}.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, of sweeps, or above them")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (default: report)")
    given = parser.parse_args(args)
    from lazy_lightning.report import write_report  # takes a second, which `runs` need not wait for

    written = write_report(load_runs(given.runs), given.out)
    print(f"{len(written.drawn)} figures in {given.out}, with their numbers; the page is {written.page}")
    for name, reason in written.refused.items():
        print(f"  not drawn: {name}: {reason}")
    return 0


def runs(args: Sequence[str]) -> int:
    """``runs list | show | rm | export``."""
    parser = _Parser("lazy-lightning runs", description=f"{COMMANDS['runs'].capitalize()}.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    listing = commands.add_parser("list", help="one line a run")
    listing.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    showing = commands.add_parser("show", help="configuration and members of a run")
    showing.add_argument("run", type=Path)
    removing = commands.add_parser("rm", help="removes the folders of runs")
    removing.add_argument("run", nargs="+", type=Path)
    removing.add_argument("--yes", action="store_true", help="without asking")
    exporting = commands.add_parser("export", help="one table, a row a member, or an observation")
    exporting.add_argument("folder", nargs="+", type=Path)
    exporting.add_argument("--out", type=Path, required=True, help="a .csv or .parquet file")
    exporting.add_argument("--curves", action="store_true", help="all observations instead of the last")
    given = parser.parse_args(args)
    if given.command == "list":
        _list(load_runs(given.folder, duplicates=True))
    elif given.command == "show":
        _show(given.run)
    elif given.command == "rm":
        return _remove(given.run, given.yes)
    else:
        _export(load_runs(given.folder), given.out, given.curves)
    return 0


def _list(members: pd.DataFrame) -> None:
    table = Table(title=f"{members['run'].nunique()} runs, {len(members)} members", title_justify="left")
    for heading in ("run", "model", "h", "alpha", "seeds", "members", "test error"):
        table.add_column(heading, justify="left" if heading in ("run", "model") else "right", overflow="fold")
    for name, rows in members.groupby("run", sort=False):
        counts = rows["status"].value_counts()
        states = ", ".join(f"{counts[s]} {s}" for s in Status if s in counts)
        table.add_row(
            str(name), str(rows["model"].iloc[0]), _span(rows, "h"), _span(rows, "alpha"),
            str(rows["seed"].nunique()), states, _error(rows),
        )  # fmt: skip
    _console().print(table)


def _span(rows: pd.DataFrame, column: str) -> str:
    values = sorted(set(rows[column].dropna()))
    if len(values) < 2:
        return f"{values[0]:g}" if values else "-"
    return f"{values[0]:g} .. {values[-1]:g} ({len(values)})"


def _error(rows: pd.DataFrame) -> str:
    errors = rows["test/error"].dropna() if "test/error" in rows else rows.iloc[:0].get("alpha", pd.Series())
    if errors.empty:
        return "-"
    low, high = 100 * errors.min(), 100 * errors.max()
    return f"{low:.2f} %" if high - low < 0.005 else f"{low:.2f} .. {high:.2f} %"


def _show(path: Path) -> None:
    run = _run(path)
    members = load_runs(path)
    known = [name for name in members.columns if "." in name and members[name].notna().any()]
    table = Table("key", "value", title=f"{path}: configuration", title_justify="left")
    for name in known:
        table.add_row(name, str(members[name].iloc[0]))
    _console().print(table)
    if run.failure is not None:
        print(f"failed: {run.failure}")
    summary = run.summary
    if summary is None:
        print("there is no summary: the run has not ended, or has failed")
        return
    from lazy_lightning.callbacks.closing_summary import print_summary  # brings torch with it

    print_summary(summary, path)


def _remove(paths: Sequence[Path], yes: bool) -> int:
    chosen = [_run(path) for path in paths]
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("runs rm asks before it removes anything, and there is nobody to answer: give --yes")
        answer = input(f"remove {', '.join(str(run.path) for run in chosen)}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    for run in chosen:
        shutil.rmtree(run.path)
        print(f"removed {run.path}")
    return 0


def _export(members: pd.DataFrame, out: Path, curves: bool) -> None:
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out is {out}, expected a file that ends in .csv or .parquet")
    table = members.curves.load() if curves else members
    with written_atomically(out) as temporary:
        if out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    print(f"{len(table)} rows and {len(table.columns)} columns in {out}")


def _run(path: Path) -> RunFolder:
    run = RunFolder(path)
    if not run.is_run:
        inside = [str(p) for p in find_runs(path)][:3] if path.is_dir() else []
        hint = f"; there are runs in it, such as {inside[0]}" if inside else ""
        raise DataError(f"{path} is not the folder of a run{hint}: `runs list FOLDER` lists them")
    return run


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)
