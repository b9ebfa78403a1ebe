"""Writing of a report: a folder with the figures of a table of runs, their numbers, and a page."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from lazy_lightning.errors import AnalysisError, LazyLightningError, RunError
from lazy_lightning.figures.catalogue import ACROSS_PIXELS, ACROSS_SAMPLES, ACROSS_TEMPERATURES, FIGURES
from lazy_lightning.figures.error_by_samples import SAMPLES
from lazy_lightning.figures.image_spectra import PIXELS
from lazy_lightning.figures.noise_plane import BATCH, RATE, temperatures
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import mark_richness
from lazy_lightning.figures.stated_scale import stated_scale, with_richness
from lazy_lightning.figures.style import save
from lazy_lightning.report.events import write_events
from lazy_lightning.report.own_folder import PAGE, claim
from lazy_lightning.report.page import Section, render
from lazy_lightning.report.settings import Setting, settings
from lazy_lightning.runs.atomic import written_atomically

_LONGEST_FOLDER = 80

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """The files and figures of a written report."""

    page: Path
    """Path of the page."""
    drawn: list[ReportFigure]
    """The figures that were drawn."""
    refused: dict[str, str]
    """Reasons by figure, with the setting's folder if there are several, for figures whose data are insufficient."""
    failed: dict[str, str]
    """Exceptions by figure, for figures that failed because of a bug; the log has the tracebacks."""


def write_report(
    runs: pd.DataFrame,
    out: Path,
    *,
    tensorboard: bool = True,
    figures: Mapping[str, Callable[[pd.DataFrame], ReportFigure]] = FIGURES,
    scale: str | None = None,
) -> Report:
    """Draws every figure that the runs support, as PNG and PDF with its numbers in CSV, and the page ``index.html``.

    Members that differ in more than h, alpha and seed are not drawn together: each setting has its own figures in its
    own folder. Files of an earlier report with the same names are replaced or removed.

    Args:
        runs: a table of :func:`~lazy_lightning.runs.load_runs`, or some of its rows.
        out: the folder of the report.
        tensorboard: whether to also write an event file with the figures.
        figures: the functions that draw the figures, by name.
        scale: the quantity in legends, captions and tables: ``alpha``, ``sqrt_h_alpha`` or the richness ``gamma``, see
            :func:`~lazy_lightning.figures.stated_scale.stated_scale`; by default each figure's own.

    Raises:
        AnalysisError: no member has finished.
        ConfigError: the scale is not one of these.
        RunError: the folder cannot be written, or holds files other than a report.
    """
    if not (runs["status"] == "finished").any():
        raise AnalysisError(
            f"none of the {len(runs)} members has finished: resume the runs, or see the reasons of failures in the "
            "table's reason column"
        )
    with stated_scale(scale):
        return _report(runs, out, tensorboard, figures)


def _report(
    runs: pd.DataFrame, out: Path, tensorboard: bool, figures: Mapping[str, Callable[[pd.DataFrame], ReportFigure]]
) -> Report:
    claim(out)
    sections = [_drawn(section, figures) for section in _sections(settings(runs), out)]
    sections += [_drawn(section, ACROSS_SAMPLES) for section in _across_samples(runs, out)]
    sections += [_drawn(section, ACROSS_TEMPERATURES) for section in _across_temperatures(runs, out)]
    sections += [_drawn(section, ACROSS_PIXELS) for section in _across_pixels(runs, out)]
    page = out / PAGE
    with written_atomically(page) as temporary:
        temporary.write_text(render(sections, out, datetime.now().astimezone()), encoding="utf-8")
    if tensorboard:
        images = {
            _tag(section, figure.name, out): section.folder / f"{figure.name}.png"
            for section in sections
            for figure in section.drawn
        }
        write_events(images, out)
    return Report(
        page=page,
        drawn=[figure for section in sections for figure in section.drawn],
        refused={_tag(section, name, out): why for section in sections for name, why in section.refused.items()},
        failed={_tag(section, name, out): why for section in sections for name, why in section.failed.items()},
    )


def _sections(found: list[Setting], out: Path) -> Iterator[Section]:
    taken: set[str] = set()
    for number, (title, runs) in enumerate(found):
        name = folder_name(title)
        name = f"{name}-{number}" if name.lower() in taken else name  # some file systems are case-insensitive
        taken.add(name.lower())
        yield Section(title, runs, out / name)


def _across_samples(runs: pd.DataFrame, out: Path) -> Iterator[Section]:
    """Yields a section for each setting with several sizes of the training set."""
    several = [part for part in settings(runs, [SAMPLES]) if SAMPLES in part.runs and part.runs[SAMPLES].nunique() > 1]
    for section in _sections(several, out / "training_samples"):
        title = f"all {SAMPLES}" + (f", {section.title}" if section.title else "")
        yield Section(title, section.runs, section.folder)


def _across_temperatures(runs: pd.DataFrame, out: Path) -> Iterator[Section]:
    """Yields a section for each setting with several temperatures lr/batch of members that end at their margins."""
    if "model.stop_margin" not in runs:
        return
    found = settings(runs[runs["model.stop_margin"].notna()], [RATE, BATCH])
    several = [part for part in found if temperatures(part.runs).nunique() > 1]
    for section in _sections(several, out / "temperatures"):
        title = "all temperatures lr/batch" + (f", {section.title}" if section.title else "")
        yield Section(title, section.runs, section.folder)


def _across_pixels(runs: pd.DataFrame, out: Path) -> Iterator[Section]:
    """Yields a section for each setting of which some runs are on images and others on noise in their place."""
    if PIXELS not in runs:
        return
    several = [part for part in settings(runs, [PIXELS]) if part.runs[PIXELS].nunique() > 1]
    for section in _sections(several, out / "pixels"):
        title = "images and noise" + (f", {section.title}" if section.title else "")
        yield Section(title, section.runs, section.folder)


def folder_name(title: str) -> str:
    """Converts a setting's title to the name of a folder; a long one is truncated at the end of a word.

    >>> folder_name("model.network.depth = 3, model.loss = softhinge(20)")
    'model.network.depth-3-model.loss-softhinge-20'
    """
    words = re.sub(r"[^A-Za-z0-9._]+", "-", title).strip("-.")
    if len(words) > _LONGEST_FOLDER:
        whole = words[: _LONGEST_FOLDER + 1].rpartition("-")[0]
        words = (whole or words[:_LONGEST_FOLDER]).strip("-.")
    return words


def _drawn(section: Section, figures: Mapping[str, Callable[[pd.DataFrame], ReportFigure]]) -> Section:
    for name, figure in figures.items():
        try:
            section.drawn.append(_written(_with_richness(figure(section.runs)), section.folder))
        except (RunError, OSError):
            raise  # not specific to the figure: files cannot be written or read
        except LazyLightningError as error:
            section.refused[name] = str(error)
        except Exception as error:  # a bug in one figure must not prevent the others
            _log.exception("the figure %s failed; the report continues without it", name)
            section.failed[name] = f"{type(error).__name__}: {error}"
        else:
            continue
        _remove(section.folder / name)
    return section


def _with_richness(drawn: ReportFigure) -> ReportFigure:
    mark_richness(drawn.figure)
    return replace(drawn, table=with_richness(drawn.table))


def _written(drawn: ReportFigure, folder: Path) -> ReportFigure:
    save(drawn.figure, folder / drawn.name)
    with written_atomically(folder / f"{drawn.name}.csv") as temporary:
        drawn.table.to_csv(temporary, index=False)  # floats by repr, the shortest text that restores the value
    return drawn


def _remove(stem: Path) -> None:
    """Removes a figure's files of an earlier report, which would be mistaken for those of this one."""
    for suffix in (".png", ".pdf", ".csv"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def _tag(section: Section, name: str, out: Path) -> str:
    return (section.folder / name).relative_to(out).as_posix()
