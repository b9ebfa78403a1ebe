"""The page of a report: one file that needs no other, to be read, printed and sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path

import pandas as pd

from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.sweep_table import sorted_widths
from lazy_lightning.report import elements
from lazy_lightning.report.account import account, listed, subject, versions
from lazy_lightning.runs.run_files import CONFIG

TITLE = "Lazy training and feature learning"
STYLE = Path(__file__).with_name("page.css")

_ABOUT_ERRORS = (
    "Errors come from the seeds and from the scatter of the points around a fit; twice an error is an interval "
    "of 95 %. Bands and bars in the figures are one standard error over seeds."
)


@dataclass
class Section:
    """What the page tells of one setting."""

    title: str
    runs: pd.DataFrame
    folder: Path
    """Where its figures lie."""
    drawn: list[ReportFigure] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """By the figure's name: what its data lack."""
    failed: dict[str, str] = field(default_factory=dict)
    """By the figure's name: the exception that it ended with, a mistake of ours."""


def render(sections: Sequence[Section], root: Path, when: datetime) -> str:
    """The page in HTML.

    Args:
        sections: one a setting, with the PNGs of their figures on the disk.
        root: where the page will lie; links are relative to it.
        when: what it says of the time it was written.
    """
    runs = pd.concat([section.runs for section in sections])
    content = "\n".join(part for part in _parts(sections, runs, root, when) if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(f"{TITLE}: {subject(runs)}")}</title>
<link rel="icon" href="data:,">
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{content}
</body>
</html>
"""


def _parts(sections: Sequence[Section], runs: pd.DataFrame, root: Path, when: datetime) -> Iterator[str]:
    yield "<header>"
    yield elements.heading(1, TITLE)
    yield elements.paragraph(subject(runs), "quiet")
    yield "</header>\n<main>"
    yield elements.paragraph(account(runs))
    yield elements.paragraph(versions(runs, when), "quiet")
    yield _findings(sections, root)
    yield elements.heading(2, "Figures")
    for section in sections:
        if len(sections) > 1:
            yield elements.heading(3, section.title)
        if not section.drawn:
            yield elements.paragraph("None could be drawn; see below.")
        for drawn in section.drawn:
            yield _figure(drawn, section, root, 3 if len(sections) == 1 else 4)
    yield _not_drawn(sections)
    yield _members_without_result(runs)
    yield _configurations(runs)
    yield "</main>"


def _findings(sections: Sequence[Section], root: Path) -> str:
    parts = []
    for section in sections:
        tables = [
            elements.pairs_table(drawn.findings, drawn.title, _stem(drawn, section, root))
            for drawn in section.drawn
            if drawn.findings
        ]
        if tables:
            parts += [elements.heading(3, section.title)] * (len(sections) > 1)
            parts += ['<div class="findings">', *tables, "</div>"]
    if not parts:
        return ""
    return "\n".join([elements.heading(2, "Findings"), elements.paragraph(_ABOUT_ERRORS, "quiet"), *parts])


def _figure(drawn: ReportFigure, section: Section, root: Path, level: int) -> str:
    stem = _stem(drawn, section, root)
    files = " · ".join(elements.link(f"{stem}.{kind}", kind.upper()) for kind in ("png", "pdf", "csv"))
    numbers = elements.frame_table(drawn.table, f"Drawn in “{drawn.title}”; the CSV file has every row and digit.")
    picture = elements.picture((section.folder / f"{drawn.name}.png").read_bytes(), f"Figure: {drawn.title}")
    return "\n".join(
        [
            f'<figure id="{escape(stem)}">',
            elements.heading(level, drawn.title),
            picture,
            f"<figcaption>{elements.prose(drawn.caption)}</figcaption>",
            "</figure>",
            f'<p class="files">{files}</p>',
            elements.details(f"Numbers of “{drawn.title}”", numbers),
        ]
    )


def _not_drawn(sections: Sequence[Section]) -> str:
    several = len(sections) > 1
    items = []
    for section in sections:
        of = f" ({section.title})" if several else ""
        items += [f"<li>{elements.prose(f'{_words(name)}{of}: {why}')}</li>" for name, why in section.refused.items()]
        items += [
            f'<li class="warn">{escape(f"{_words(name)}{of}: failed, which is a mistake of the program. {why}")}</li>'
            for name, why in section.failed.items()
        ]
    return "\n".join([elements.heading(2, "Not drawn"), "<ul>", *items, "</ul>"]) if items else ""


def _members_without_result(runs: pd.DataFrame) -> str:
    failed = runs[runs["status"] == "failed"]
    if failed.empty:
        return ""
    columns = [name for name in ("run", "model", "h", "alpha", "seed", "reason") if name in failed]
    caption = f"{len(failed)} of {len(runs)} members have no result; they are left out of all figures."
    return "\n".join([elements.heading(2, "Failed members"), elements.frame_table(failed[columns], caption)])


def _configurations(runs: pd.DataFrame) -> str:
    parts = [elements.heading(2, "Configuration")]
    parts.append(elements.paragraph("Of one run each; “fit --config” takes it as it is."))
    for _, members in runs.groupby("family", sort=False):
        text = _configuration(Path(str(members["path"].iloc[0])))
        parts.append(elements.details(_family(members), elements.code(text)))
    return "\n".join(parts)


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
    """Of the figure's files, from the page; and its name on the page."""
    return (section.folder / drawn.name).relative_to(root).as_posix()


def _words(name: str) -> str:
    return name.replace("_", " ")
