"""What an experiment is: the commands whose runs some claims are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "FOLDER"
"""Stands for the folder of a command's runs."""


@dataclass(frozen=True)
class Experiment:
    """Commands that train what some claims are measured on."""

    title: str
    """The task, networks and sizes."""
    commands: Mapping[str, str]
    """Commands of ``lazy-lightning`` by the folder of their runs within that of the experiment."""
    images: str | None = None
    """The data set that must be at hand or downloaded; None for bundled and synthetic data."""

    def commands_in(self, folder: Path) -> dict[Path, str]:
        """Returns the commands by the folders of their runs, for a folder of the experiment."""
        return {folder / part: text.replace(FOLDER, str(folder / part)) for part, text in self.commands.items()}


FIT = f"--trainer.logger.save_dir={FOLDER}"
"""Puts the run of a ``fit`` into the folder of its command."""
