"""The page of the claims, in Markdown, with its figures, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from lazy_lightning.claims.claim import Verdict
from lazy_lightning.claims.evaluation import Evaluated
from lazy_lightning.claims.experiment import Experiment
from lazy_lightning.claims.experiments import EXPERIMENTS
from lazy_lightning.claims.numbers_file import MeasuredRuns, write_numbers
from lazy_lightning.errors import LazyLightningError
from lazy_lightning.figures.catalogue import EVERY_FIGURE
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import mark_richness
from lazy_lightning.figures.stated_scale import states_gamma
from lazy_lightning.figures.style import save
from lazy_lightning.runs.atomic import written_atomically

PAGE, NUMBERS, IMAGES = "claims.md", "claims.json", "claims"

_INTRODUCTION = """\
# The papers' claims

Each statement is a number measured by an experiment of this package. *Expected* is the interval of the statement. The
number after ± is one standard error, widened for few seeds by Student's t, so that two of it cover the true value in
95 % of cases; what it is an error over is stated with each. A claim is **met** if the interval of two errors lies
inside the expected one, **not met** if it lies outside, and **not resolved** if the two overlap in part: it takes more
seeds or a larger size. Of a claim with several numbers, for example one for each width, all must agree.

This page is written by `make claims`, which runs the experiments that are not stored; `lazy-lightning report RUNS
--claims` evaluates the claims on stored runs. Experiments whose runs are not at hand keep the numbers that
`claims.json` has of them, measured on the machine that is named with them.
"""

_OF_RICHNESS = """\
Scales are stated as the richness gamma = 1/(sqrt(h) alpha): an exponent p against sqrt(h) alpha is the exponent -p
against gamma. Figures against sqrt(h) alpha have an axis of gamma above them.
"""


def write_claims(
    evaluated: Iterable[Evaluated],
    runs: Mapping[str, pd.DataFrame],
    out: Path,
    machine: str,
    earlier: Mapping[str, MeasuredRuns] = MappingProxyType({}),
) -> Path:
    """Writes ``claims.md``, ``claims.json`` and the figures in the folder ``claims``, and returns the page's path.

    Args:
        evaluated: the claims in the order of the page, with the stored numbers of
            :func:`~lazy_lightning.claims.numbers_file.with_stored` where an experiment is not in ``runs``.
        runs: the tables of runs by experiment on which they were evaluated.
        out: the folder, which is made if it does not exist.
        machine: one line on the versions and the machine.
        earlier: the runs of the experiments that are not in ``runs``; their figures are those that the folder contains.

    Raises:
        OSError: the folder cannot be written.
    """
    found = list(evaluated)
    measured_on = {**earlier, **{name: MeasuredRuns.of(name, table, machine) for name, table in runs.items()}}
    out.mkdir(parents=True, exist_ok=True)
    images = _drawn(found, runs, out / IMAGES)
    write_numbers(out / NUMBERS, found, measured_on)
    with written_atomically(out / PAGE) as temporary:
        temporary.write_text(_text(found, measured_on, images, machine), "utf-8")
    return out / PAGE


def _text(found: list[Evaluated], runs: Mapping[str, MeasuredRuns], images: list[str], machine: str) -> str:
    counts = {verdict: sum(one.verdict is verdict for one in found) for verdict in Verdict}
    unmeasured = sum(one.verdict is None for one in found)
    numbers = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines = [
        _INTRODUCTION,
        *([_OF_RICHNESS] if states_gamma() else []),
        f"{len(found)} claims: {numbers}, {unmeasured} not measured. {machine}\n",
    ]
    for name in dict.fromkeys(one.claim.experiment for one in found):
        of_experiment = [one for one in found if one.claim.experiment == name]
        lines += _section(name, of_experiment, _cost(runs.get(name), machine), images)
    return "\n".join(lines)


def _section(name: str, found: list[Evaluated], cost: str, images: list[str]) -> list[str]:
    experiment = EXPERIMENTS[name]
    title = experiment.title[0].upper() + experiment.title[1:]
    lines = [f"## {name.replace('_', ' ').capitalize()}\n", f"{title}. {cost}\n", *_commands(name, experiment)]
    lines += ["| statement | source | expected | measured | verdict |", "|---|---|---|---|---|"]
    lines += [_row(one) for one in found]
    lines += ["", *(f"* {one.claim.name}: {one.claim.quantity}. {one.claim.remark}".rstrip() for one in found), ""]
    shown = [image for image in images if image.startswith(f"{name}-")]
    return lines + [f"![{image}]({IMAGES}/{image}.png)\n" for image in shown]


def _commands(name: str, experiment: Experiment) -> list[str]:
    commands = experiment.commands_in(Path("runs", "claims", name)).values()
    return ["```bash", *(f"lazy-lightning {command}" for command in commands), "```", ""]


def _cost(runs: MeasuredRuns | None, machine: str) -> str:
    """Describes the wall time and the date of the runs, and the machine if it is not that of the page."""
    if runs is None:
        return "Not run."
    return f"{runs}." if runs.machine == machine else f"{runs}: {runs.machine}"


def _row(one: Evaluated) -> str:
    claim = one.claim
    measured = "<br>".join(map(str, one.measured)) or f"not measured: {one.reason}"
    verdict = f"**{one.verdict}**" if one.verdict else "-"
    return f"| {claim.statement} | {claim.source} | {claim.expected} | {measured} | {verdict} |".replace("\n", " ")


def _drawn(found: list[Evaluated], runs: Mapping[str, pd.DataFrame], folder: Path) -> list[str]:
    """Draws the figures of the measured claims and returns their names, ``EXPERIMENT-FIGURE``.

    The figure of an experiment whose runs are not given is that of the folder, if it contains one.
    """
    wanted = dict.fromkeys((one.claim.experiment, one.claim.figure) for one in found if one.measured)
    images = []
    for experiment, figure in wanted:
        name = f"{experiment}-{figure}"
        if figure is None:
            continue
        if experiment not in runs:
            images += [name] if (folder / f"{name}.png").is_file() else []
        elif drawn := _figure(EVERY_FIGURE[figure], runs[experiment]):
            images.append(name)
            save(drawn.figure, folder / name, [".png"])
    return images


def _figure(draw: Callable[[pd.DataFrame], ReportFigure], runs: pd.DataFrame) -> ReportFigure | None:
    """Returns a figure, or None if the runs suffice for the number but not for the figure."""
    try:
        drawn = draw(runs)
    except LazyLightningError:
        return None
    mark_richness(drawn.figure)
    return drawn
