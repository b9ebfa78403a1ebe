"""The subcommands ``runs`` and ``report``, which read stored runs and build no network."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from rich.console import Console
from rich.table import Table

from lazy_lightning.cli.subcommands import STORED
from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.figures.stated_scale import SCALES, stated_scale, with_richness
from lazy_lightning.plain_text import csv_text, printable, rich_text
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.load import load_runs, without_damaged_arrays
from lazy_lightning.runs.removal import removable, remove, require_run
from lazy_lightning.runs.run_files import SUMMARY
from lazy_lightning.runs.run_folder import Status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; --help lists the options")


def report(args: Sequence[str]) -> int:
    """Runs ``report RUNS... --out FOLDER`` and returns the exit code."""
    parser = _Parser("lazy-lightning report", description=f"Draws {STORED['report']}.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs or sweeps, or folders that contain them")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (default: report)")
    parser.add_argument(
        "--claims",
        action="store_true",
        help="instead of figures, the papers' claims on the experiments in RUNS, each in the folder of its name",
    )
    _add_scale(parser)
    given = parser.parse_args(args)
    if given.claims:
        with stated_scale(given.scale):
            return _claims(given.runs, given.out)
    from lazy_lightning.report import require_own_folder, write_report  # takes a second, which `runs` does not need

    require_own_folder(given.out)
    members = _undamaged(load_runs(given.runs, on_damaged=_warn))
    written = write_report(members, given.out, scale=given.scale)
    out, page = printable(given.out), printable(written.page)
    print(f"{len(written.drawn)} figures in {out}, with their numbers; the page is {page}")
    for name, reason in {**written.refused, **written.failed}.items():
        print(f"  not drawn: {printable(name)}: {printable(reason)}")
    return 0


def _claims(folders: Sequence[Path], out: Path) -> int:
    """Evaluates the claims on the experiments in some folders; others keep the numbers that ``out`` has.

    Raises:
        DataError: no folder contains an experiment, or the file of numbers in ``out`` is damaged.
    """
    from lazy_lightning.claims import CLAIMS, EXPERIMENTS, evaluate, write_claims
    from lazy_lightning.claims.numbers_file import read_numbers, with_stored
    from lazy_lightning.claims.page import NUMBERS
    from lazy_lightning.cli.version_report import machine_line

    stored = {name: [folder / name for folder in folders if (folder / name).is_dir()] for name in EXPERIMENTS}
    there = {name: paths for name, paths in stored.items() if paths}
    if not there:
        raise DataError(
            f"no experiment of the claims in {', '.join(map(printable, folders))}: expected a folder named "
            f"{', '.join(EXPERIMENTS)}; `make claims` makes them"
        )
    tables = {name: _undamaged(load_runs(paths, on_damaged=_warn)) for name, paths in there.items()}
    earlier = read_numbers(out / NUMBERS)
    found = with_stored(evaluate(CLAIMS, tables), tables, earlier)
    page = write_claims(found, tables, out, machine_line(), earlier.runs)
    for one in found:
        measured = "; ".join(map(str, one.measured)) or one.reason
        print(printable(f"{one.verdict or 'not measured'}: {one.claim.name} ({one.claim.expected}): {measured}"))
    print(f"the page is {printable(page)}")
    return 0


def runs(args: Sequence[str]) -> int:
    """Runs ``runs list | show | rm | export`` and returns the exit code."""
    parser = _Parser("lazy-lightning runs", description=f"{STORED['runs'].capitalize()}.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    listing = commands.add_parser("list", help="prints one line for each run")
    listing.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    _add_scale(listing)
    showing = commands.add_parser("show", help="prints the configuration and the members of a run")
    showing.add_argument("run", type=Path)
    _add_scale(showing)
    removing = commands.add_parser("rm", help="removes the folders of runs")
    removing.add_argument("run", nargs="+", type=Path)
    removing.add_argument("--yes", action="store_true", help="removes without confirmation")
    exporting = commands.add_parser("export", help="writes one table with a row for each member or observation")
    exporting.add_argument("folder", nargs="+", type=Path)
    exporting.add_argument("--out", type=Path, required=True, help="a .csv or .parquet file")
    exporting.add_argument("--curves", action="store_true", help="writes all observations instead of the last")
    exporting.add_argument("--duplicates", action="store_true", help="keeps duplicates of members")
    _add_scale(exporting)
    given = parser.parse_args(args)
    if given.command == "list":
        _list(load_runs(given.folder, duplicates=True, on_damaged=_warn), given.scale)
    elif given.command == "show":
        with stated_scale(given.scale):
            _show(given.run)
    elif given.command == "rm":
        return _remove(given.run, given.yes)
    else:
        with stated_scale(given.scale):
            _export(given.folder, given.out, given.curves, given.duplicates)
    return 0


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale",
        choices=SCALES,
        help="the quantity in legends, captions and tables; gamma is the richness 1/(sqrt(h) alpha)",
    )


def _warn(sentence: str) -> None:
    print(f"warning: {printable(sentence)}", file=sys.stderr)


def _undamaged(members: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows whose arrays can be read.

    Raises:
        DataError: there is none.
    """
    damaged: list[str] = []
    undamaged = without_damaged_arrays(members, damaged.append)
    if undamaged.empty:
        raise DataError(damaged[0])
    for sentence in damaged:
        _warn(sentence)
    return undamaged


def _list(members: pd.DataFrame, scale: str | None) -> None:
    column = scale or "alpha"
    with stated_scale(scale):
        members = with_richness(members)
    again = len(members) - members["id"].nunique()
    title = f"{members['path'].nunique()} runs, {len(members)} members" + (
        f", {again} of them duplicates of others" if again else ""
    )
    table = Table(title=title, title_justify="left")
    words = ("run", "model", "data")
    for heading in ("run", "model", "data", "n_train", "h", column, "seeds", "members", "test error"):
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")
    by_run = {str(rows["run"].iloc[0]): rows for _, rows in members.groupby("path", sort=False)}
    for name in sorted(by_run, key=_natural_order):
        rows = by_run[name]
        counts = rows["status"].value_counts()
        states = ", ".join(f"{counts[s]} {s}" for s in Status if s in counts)
        cells = (
            name, rows["model"].iloc[0], _first(rows, "data"), _span(rows, "data.n_train"), _span(rows, "h"),
            _span(rows, column), rows["seed"].nunique(), states, _error(rows),
        )  # fmt: skip
        table.add_row(*(rich_text(cell) for cell in cells))
    _console().print(table)


def _natural_order(name: str) -> list[Any]:
    """Returns a sort key that orders ``version_2`` before ``version_10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _first(rows: pd.DataFrame, column: str) -> str:
    value = rows[column].iloc[0] if column in rows else None
    return "-" if value is None or value != value else str(value)


def _span(rows: pd.DataFrame, column: str) -> str:
    if column not in rows:
        return "-"
    values = sorted(set(pd.to_numeric(rows[column], errors="coerce").dropna()))
    if len(values) < 2:
        return f"{values[0]:g}" if values else "-"
    return f"{values[0]:g} .. {values[-1]:g} ({len(values)})"


def _error(rows: pd.DataFrame) -> str:
    errors = pd.to_numeric(rows["test/error"], errors="coerce").dropna() if "test/error" in rows else pd.Series()
    if errors.empty:
        return "-"
    low, high = 100 * errors.min(), 100 * errors.max()
    return f"{low:.2f} %" if high - low < 0.005 else f"{low:.2f} .. {high:.2f} %"


def _show(path: Path) -> None:
    run = require_run(path)
    members = load_runs(path, on_damaged=_warn)
    configured = ("data", "model", "model.alpha", "model.seeds")
    known = [
        name
        for name in members.columns
        if (name in configured or name.startswith(("model.", "data.", "trainer."))) and members[name].notna().any()
    ]
    table = Table("key", "value", title=rich_text(f"{path}: configuration"), title_justify="left")
    for name in known:
        table.add_row(rich_text(name), rich_text(members[name].iloc[0]))
    _console().print(table)
    if run.failure is not None:
        print(f"failed: {printable(run.failure)}")
    summary = run.summary
    if summary is None:
        print("there is no summary: the run has not ended, or has failed")
        return
    from lazy_lightning.callbacks.closing_summary import print_summary  # imports torch

    try:
        print_summary(summary, path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = printable(f"{type(error).__name__}: {error}")
        raise DataError(
            f"{printable(path / SUMMARY)} has groups that are not those of a summary ({reason}): `runs export` lists "
            "its members"
        ) from error


def _remove(paths: Sequence[Path], yes: bool) -> int:
    chosen = removable(paths)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("runs rm needs a confirmation, but the standard input is not a terminal: give --yes")
        answer = input(f"remove {', '.join(printable(path) for path in chosen)}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    remove(chosen)
    for path in chosen:
        print(f"removed {printable(path)}")
    return 0


def _export(folders: Sequence[Path], out: Path, curves: bool, duplicates: bool) -> None:
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out is {printable(out)}, expected a file that ends in .csv or .parquet")
    everything = load_runs(folders, duplicates=True, on_damaged=_warn)
    members = everything if duplicates else load_runs(folders, on_damaged=_ignore)
    table = with_richness(_undamaged(members).curves.load() if curves else members)
    with written_atomically(out) as temporary:
        if out.suffix == ".csv":
            _without_formulas(table).to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    left = len(everything) - len(members)
    note = f"; {left} members that are duplicates of others were left out (--duplicates keeps them)" if left else ""
    print(f"{len(table)} rows and {len(table.columns)} columns in {printable(out)}{note}")


def _ignore(sentence: str) -> None:
    """Ignores a message about a damaged run that has been printed before."""


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table whose text cells a spreadsheet does not interpret as formulas; numbers are unchanged."""
    words = {str(name): table[name].map(_cell) for name in table if not pd.api.types.is_numeric_dtype(table[name])}
    return table.assign(**words).rename(columns=csv_text)


def _cell(value: Any) -> Any:
    return csv_text(value) if isinstance(value, str) else value


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=150)
