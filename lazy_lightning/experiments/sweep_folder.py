"""The folder of a sweep: its runs, the plan of its batches, and a lock, so that two sweeps do not fill it at once.

``sweep.yaml`` says what was asked for last, ``plan/RUN.yaml`` holds the configuration of a batch that has been planned,
``RUN/`` is its run. A plan is kept so that the same command, given again after a stop, makes the same runs.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lazy_lightning.atomic import written_atomically
from lazy_lightning.configuration import load_yaml
from lazy_lightning.errors import RunError
from lazy_lightning.experiments.plan import Batch
from lazy_lightning.experiments.run_folder import RunFolder
from lazy_lightning.run_files import CHECKPOINT, CONFIG

_DECLARATION, _PLAN, _LOCK = "sweep.yaml", "plan", ".lock"


@dataclass(frozen=True)
class SweepFolder:
    """See the module."""

    path: Path

    def run(self, key: str) -> RunFolder:
        """Of a batch."""
        return RunFolder(self.path / key)

    def config_path(self, key: str) -> Path:
        """Of a batch that has been planned."""
        return self.path / _PLAN / f"{key}.yaml"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For as long as a sweep is at work; the lock of a process that has died is gone with it.

        Raises:
            RunError: another sweep is at work, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("w")
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path} ({error.strerror}): choose another folder with --out"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"another sweep is at work in {self.path}: wait until it has ended, or choose another with --out"
                ) from error
            yield

    def declare(self, content: Mapping[str, Any]) -> None:
        """Keeps what was asked for."""
        _write(self.path / _DECLARATION, content)

    def planned(self) -> dict[str, dict[str, Any]]:
        """Configurations of batches by key, of an earlier plan."""
        return {path.stem: load_yaml(path) for path in sorted((self.path / _PLAN).glob("*.yaml"))}

    def keep_plan(self, batch: Batch) -> None:
        """Writes a batch's configuration."""
        _write(self.config_path(batch.key), batch.config)

    def forget_plan(self, key: str) -> None:
        """It is not wanted any more."""
        self.config_path(key).unlink(missing_ok=True)

    def make_room(self, key: str) -> RunFolder:
        """The folder of a batch that is to be trained: one that has ended is emptied, one that has not goes on."""
        run = self.run(key)
        if run.ended:
            shutil.rmtree(run.path)
        run.path.mkdir(parents=True, exist_ok=True)
        return run

    def fail(self, batch: Batch, reason: str) -> None:
        """Records why a batch has no result, also if it has not come so far as to save its configuration."""
        run = self.run(batch.key)
        if not (run.path / CONFIG).is_file():
            _write(run.path / CONFIG, batch.config)
        run.fail(reason)

    def checkpoint(self, key: str) -> Path:
        """Of a run."""
        return self.path / key / CHECKPOINT


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with written_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
