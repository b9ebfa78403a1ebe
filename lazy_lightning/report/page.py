"""The page of a report: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from lazy_lightning.figures.draws import draws
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.stated_scale import with_richness
from lazy_lightning.figures.sweep_table import sorted_widths
from lazy_lightning.report import elements
from lazy_lightning.report.account import account, listed, subject, versions
from lazy_lightning.runs.run_files import CONFIG

TITLE = "Lazy training and feature learning"
TEMPLATE = "page.html.jinja"
STYLE = Path(__file__).with_name("page.css")

_ABOUT_ERRORS = (
    "Errors are over {over}, those of fits also over the scatter of the points around the fit, and widened by "
    "Student's t for few draws, so that twice an error is an interval of 95 %. Bands and bars in the figures are one "
    "such standard error. The sampling error of the test set, which all members share, is not in them; the findings "
    "give it beside the test errors."
)


@dataclass
class Section:
    """The section of one setting on the page."""

    title: str
    runs: pd.DataFrame
    folder: Path
    """Folder of its figures."""
    drawn: list[ReportFigure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Reasons by figure name, for figures whose data are missing or insufficient."""
    failed: dict[str, str] = field(default_factory=dict)
    """Exceptions by figure name, for figures that failed because of a bug in the program."""


def render(sections: Sequence[Section], root: Path, when: datetime) -> str:
    """Returns the page in HTML.

    Args:
        sections: one section for each setting; the PNG files of their figures must exist.
        root: folder of the page, to which links are relative.
        when: the time of writing, which is printed on the page.
    """
    runs = pd.concat([section.runs for section in sections])
    return (
        elements.environment()
        .get_template(TEMPLATE)
        .render(
            title=TITLE,
            subject=subject(runs),
            style=Markup(STYLE.read_text(encoding="utf-8")),
            account=account(runs),
            versions=versions(runs, when),
            about_errors=_ABOUT_ERRORS.format(over=_sources(runs)),
            several=len(sections) > 1,
            sections=[_section(section, root) for section in sections],
            not_drawn=list(_not_drawn(sections)),
            failed_members=_members_without_result(runs),
            configurations=list(_configurations(runs)),
        )
    )


def _sources(runs: pd.DataFrame) -> str:
    """Returns what the errors of a table of runs are over, such as ``seeds of the weights``."""
    return listed(sorted({draws(part).over for _, part in runs.groupby(["model", "h"], dropna=False)}))


def _section(section: Section, root: Path) -> dict[str, Any]:
    figures = [_figure(drawn, section, root) for drawn in section.drawn]
    return {"title": section.title, "figures": figures, "found": [figure for figure in figures if figure["findings"]]}


def _figure(drawn: ReportFigure, section: Section, root: Path) -> dict[str, Any]:
    return {
        "title": drawn.title,
        "caption": drawn.caption,
        "findings": drawn.findings,
        "stem": _stem(drawn, section, root),
        "table": elements.frame_table(drawn.table, f"Drawn in “{drawn.title}”; the CSV file has every row and digit."),
        "picture": elements.picture((section.folder / f"{drawn.name}.png").read_bytes(), f"Figure: {drawn.title}"),
    }


def _not_drawn(sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    for section in sections:
        of = f" ({section.title})" if len(sections) > 1 else ""
        for name, why in section.refused.items():
            yield {"failed": False, "text": f"{_words(name)}{of}: {why}"}
        for name, why in section.failed.items():
            yield {"failed": True, "text": f"{_words(name)}{of}: failed because of a bug in the program. {why}"}


def _members_without_result(runs: pd.DataFrame) -> Markup:
    failed = runs[runs["status"] == "failed"]
    if failed.empty:
        return Markup()
    failed = with_richness(failed)
    columns = [name for name in ("run", "model", "h", "alpha", "gamma", "seed", "reason") if name in failed]
    caption = f"{len(failed)} of {len(runs)} members have no result; they are left out of all figures."
    return elements.frame_table(failed[columns], caption)


def _configurations(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, members in runs.groupby("family", sort=False):
        text = _configuration(Path(str(members["path"].iloc[0])))
        yield {"title": _family(members), "lines": text.split("\n")}


def _family(members: pd.DataFrame) -> str:
    widths = [f"{h:g}" for h in sorted_widths(members) if h == h]
    h = f", h = {listed(widths)}" if widths else ""
    count = len(members)
    return (
        f"{members['model'].iloc[0]}{h}: {count} {'member' if count == 1 else 'members'}, run {members['run'].iloc[0]}"
    )


def _configuration(folder: Path) -> str:
    try:
        return (folder / CONFIG).read_text(encoding="utf-8")
    except OSError as error:
        return f"{CONFIG} cannot be read: {error.strerror}"


def _stem(drawn: ReportFigure, section: Section, root: Path) -> str:
    """Returns the path of a figure's files without suffix, relative to the page; also its name on the page."""
    return (section.folder / drawn.name).relative_to(root).as_posix()


def _words(name: str) -> str:
    return name.replace("_", " ")
