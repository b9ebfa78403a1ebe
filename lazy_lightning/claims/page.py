"""The page of the claims, in Markdown, with its figures, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.claims.claim import Verdict
from lazy_lightning.claims.evaluation import Evaluated
from lazy_lightning.claims.experiments import EXPERIMENTS, Experiment
from lazy_lightning.errors import LazyLightningError
from lazy_lightning.figures.catalogue import FIGURES
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import mark_richness
from lazy_lightning.figures.stated_scale import states_gamma
from lazy_lightning.figures.style import save
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import SUMMARY

PAGE, NUMBERS, IMAGES = "claims.md", "claims.json", "claims"

_INTRODUCTION = """\
# The papers' claims

Each statement is a number measured by an experiment of this package. *Expected* is the interval of the statement. The
number after ± is one standard error, widened for few seeds by Student's t, so that two of it cover the true value in
95 % of cases; what it is an error over is stated with each. A claim is **met** if the interval of two errors lies
inside the expected one, **not met** if it lies outside, and **not resolved** if the two overlap in part: it takes more
seeds or a larger size. Of a claim with several numbers, for example one for each width, all must agree.

This page is written by `make claims`, which runs the experiments that are not stored; `lazy-lightning report RUNS
--claims` evaluates the claims on stored runs.
"""

_OF_RICHNESS = """\
Scales are stated as the richness gamma = 1/(sqrt(h) alpha): an exponent p against sqrt(h) alpha is the exponent -p
against gamma. Figures against sqrt(h) alpha have an axis of gamma above them.
"""


def write_claims(evaluated: Iterable[Evaluated], runs: Mapping[str, pd.DataFrame], out: Path, machine: str) -> Path:
    """Writes ``claims.md``, ``claims.json`` and the figures in the folder ``claims``, and returns the page's path.

    Args:
        evaluated: the claims in the order of the page.
        runs: the tables of runs by experiment on which they were evaluated.
        out: the folder, which is made if it does not exist.
        machine: one line on the versions and the machine.

    Raises:
        OSError: the folder cannot be written.
    """
    found = list(evaluated)
    out.mkdir(parents=True, exist_ok=True)
    images = _drawn(found, runs, out / IMAGES)
    with written_atomically(out / NUMBERS) as temporary:
        temporary.write_text(json.dumps([_entry(one) for one in found], indent=1, ensure_ascii=False) + "\n", "utf-8")
    with written_atomically(out / PAGE) as temporary:
        temporary.write_text(_text(found, runs, images, machine), "utf-8")
    return out / PAGE


def _text(found: list[Evaluated], runs: Mapping[str, pd.DataFrame], images: list[str], machine: str) -> str:
    counts = {verdict: sum(one.verdict is verdict for one in found) for verdict in Verdict}
    unmeasured = sum(one.verdict is None for one in found)
    numbers = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines = [
        _INTRODUCTION,
        *([_OF_RICHNESS] if states_gamma() else []),
        f"{len(found)} claims: {numbers}, {unmeasured} not measured. {machine}\n",
    ]
    for name in dict.fromkeys(one.claim.experiment for one in found):
        lines += _section(name, [one for one in found if one.claim.experiment == name], runs.get(name), images)
    return "\n".join(lines)


def _section(name: str, found: list[Evaluated], runs: pd.DataFrame | None, images: list[str]) -> list[str]:
    experiment = EXPERIMENTS[name]
    title = experiment.title[0].upper() + experiment.title[1:]
    lines = [f"## {name.replace('_', ' ').capitalize()}\n", f"{title}. {_cost(runs)}\n", *_commands(name, experiment)]
    lines += ["| statement | source | expected | measured | verdict |", "|---|---|---|---|---|"]
    lines += [_row(one) for one in found]
    lines += ["", *(f"* {one.claim.name}: {one.claim.quantity}. {one.claim.remark}".rstrip() for one in found), ""]
    shown = [image for image in images if image.startswith(f"{name}-")]
    return lines + [f"![{image}]({IMAGES}/{image}.png)\n" for image in shown]


def _commands(name: str, experiment: Experiment) -> list[str]:
    commands = experiment.commands_in(Path("runs", "claims", name)).values()
    return ["```bash", *(f"lazy-lightning {command}" for command in commands), "```", ""]


def _cost(runs: pd.DataFrame | None) -> str:
    """Describes the wall time and the date of the runs."""
    if runs is None:
        return "Not run."
    each = runs.drop_duplicates("path")
    summaries = [Path(str(path)) / SUMMARY for path in each["path"]]
    newest = max((path.stat().st_mtime for path in summaries if path.is_file()), default=0.0)
    day = f", {datetime.fromtimestamp(newest):%Y-%m-%d}" if newest else ""
    return f"{len(runs)} members, wall time {duration(float(each['wall_seconds'].sum()))}{day}."


def _row(one: Evaluated) -> str:
    claim = one.claim
    measured = "<br>".join(map(str, one.measured)) or f"not measured: {one.reason}"
    verdict = f"**{one.verdict}**" if one.verdict else "-"
    return f"| {claim.statement} | {claim.source} | {claim.expected} | {measured} | {verdict} |".replace("\n", " ")


def _entry(one: Evaluated) -> dict[str, Any]:
    claim = one.claim
    measured = [{**m._asdict(), "verdict": str(v)} for m, v in zip(one.measured, one.verdicts, strict=True)]
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "experiment": claim.experiment,
        "quantity": claim.quantity,
        "expected": [_finite(claim.expected.low), _finite(claim.expected.high)],
        "measured": [{key: _finite(value) for key, value in m.items()} for m in measured],
        "verdict": str(one.verdict) if one.verdict else None,
        "reason": one.reason,
    }


def _finite(value: Any) -> Any:
    """Returns None for a number that JSON cannot represent."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _drawn(found: list[Evaluated], runs: Mapping[str, pd.DataFrame], folder: Path) -> list[str]:
    """Draws the figures of the measured claims and returns their names, ``EXPERIMENT-FIGURE``."""
    wanted = dict.fromkeys((one.claim.experiment, one.claim.figure) for one in found if one.measured)
    images = []
    for experiment, figure in wanted:
        if figure is not None and (drawn := _figure(FIGURES[figure], runs[experiment])):
            images.append(f"{experiment}-{figure}")
            save(drawn.figure, folder / images[-1], [".png"])
    return images


def _figure(draw: Callable[[pd.DataFrame], ReportFigure], runs: pd.DataFrame) -> ReportFigure | None:
    """Returns a figure, or None if the runs suffice for the number but not for the figure."""
    try:
        drawn = draw(runs)
    except LazyLightningError:
        return None
    mark_richness(drawn.figure)
    return drawn
