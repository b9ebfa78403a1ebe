"""Draws the figures of the gallery from stored runs and writes its page, with the commands of each."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lazy_lightning import load_runs
from lazy_lightning.cli.bundled import find_config
from lazy_lightning.errors import LazyLightningError, RunError
from lazy_lightning.figures.catalogue import EVERY_FIGURE
from lazy_lightning.figures.style import save

HERE = Path(__file__).parent
PAGE = HERE.parent / "gallery.md"
_INTRODUCTION = """\
# Gallery

Each figure is shown with the configurations and the commands of its runs. `make gallery` draws all figures whose runs
are stored, and writes this page. A click on a figure shows it at its full size. `lazy-lightning report RUNS` draws the
same figures of your own runs.
"""


class Entry(NamedTuple):
    """One figure of the gallery, an item of ``gallery.yaml``."""

    figure: str
    title: str
    runs: str
    made: str
    commands: list[str]
    name: str | None = None
    note: str = ""

    @property
    def stem(self) -> str:
        """Name of the image without its suffix."""
        return self.name or self.figure


def entries() -> list[Entry]:
    """Returns the items of ``gallery.yaml``."""
    return [Entry(**item) for item in yaml.safe_load((HERE / "gallery.yaml").read_text(encoding="utf-8"))]


def write(entry: Entry, runs: pd.DataFrame, image: Path) -> None:
    """Draws a figure of stored runs, or copies the one that the newest run has drawn itself.

    Raises:
        LazyLightningError: the runs do not support the figure.
    """
    if entry.figure in EVERY_FIGURE:
        save(EVERY_FIGURE[entry.figure](runs).figure, image.with_suffix(""), [".png"])
        return
    made = [Path(str(path)) / "figures" / f"{entry.figure}.png" for path in runs["path"].unique()]
    there = [path for path in made if path.is_file()]
    if not there:
        raise RunError(f"no run in {entry.runs} has figures/{entry.figure}.png: run {entry.commands[-1]}")
    shutil.copyfile(max(there, key=lambda path: path.stat().st_mtime), image)


def page() -> str:
    """Returns the text of the page; it depends on ``gallery.yaml`` alone."""
    return "\n".join([_INTRODUCTION, *(_section(entry) for entry in entries())])


def _section(entry: Entry) -> str:
    names = [word for command in entry.commands for word in command.split() if word.endswith(".yaml")]
    configs = ", ".join(f"`{name}`" for name in dict.fromkeys(names) if find_config(name).is_file())
    return "\n".join(
        [
            f"## {entry.title}\n",
            f"[![{entry.title}](gallery/{entry.stem}.png)](gallery/{entry.stem}.png)\n",
            f"Runs of {entry.made}. Configurations: {configs}.{entry.note and ' ' + entry.note}\n",
            "```bash",
            *entry.commands,
            "```",
            "",
        ]
    )


def main(given: list[str] | None = None) -> int:
    """Draws what the stored runs support; returns 1 if a figure whose runs are there could not be drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder that contains the folders of the runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the images")
    options: Any = parser.parse_args(given)
    failed = 0
    for entry in entries():
        folder = options.root / entry.runs
        if not folder.is_dir():
            print(f"{entry.stem}: kept as it is, there are no runs in {folder}")
            continue
        try:
            write(entry, load_runs(folder), options.out / f"{entry.stem}.png")
        except LazyLightningError as error:
            failed += 1
            print(f"{entry.stem}: {error}")
            continue
        print(f"{entry.stem}: drawn from {folder}")
    if options.out == HERE:
        PAGE.write_text(page(), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
