"""The folder of a sweep: its runs, the plan of its batches, and a lock against other sweeps in the same folder.

``sweep.yaml`` contains the most recent specification, ``plan/RUN.yaml`` the configuration of a planned batch, and
``RUN/`` its run. A plan is kept so that the same command, given again after a stop, creates the same runs.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lazy_lightning.errors import DataError, RunError
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.plain_text import printable
from lazy_lightning.runs import configuration
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.lock import held_lock
from lazy_lightning.runs.run_files import CHECKPOINT, CONFIG, FAILURE, SUMMARY
from lazy_lightning.runs.run_folder import RunFolder

_DECLARATION, _PLAN, _LOCK = "sweep.yaml", "plan", ".lock"
_KEY = re.compile(r"[0-9a-f]{12}")
"""Pattern of the names of a sweep's runs, see :func:`lazy_lightning.runs.configuration.run`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepFolder:
    """The files and folders in the folder of a sweep."""

    path: Path

    def run(self, key: str) -> RunFolder:
        """Returns the run folder of a batch."""
        return RunFolder(self.path / key)

    def config_path(self, key: str) -> Path:
        """Returns the path of the configuration of a planned batch."""
        return self.path / _PLAN / f"{key}.yaml"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of the folder; the operating system releases the lock of a process that dies.

        Raises:
            RunError: another sweep holds the lock, or the folder cannot be written.
        """
        busy = (
            f"another sweep is running in {printable(self.path)}: wait until it has ended, or choose another with --out"
        )
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held_lock(self.path / _LOCK, busy))
            except OSError as error:
                raise RunError(
                    f"cannot write to {printable(self.path)} ({error.strerror}): choose another folder with --out"
                ) from error
            yield

    def declare(self, content: Mapping[str, Any]) -> None:
        """Writes the specification of the sweep."""
        _write(self.path / _DECLARATION, content)

    def planned(self) -> dict[str, dict[str, Any]]:
        """Returns the configurations of planned batches by key; invalid files are skipped with a warning."""
        found = {}
        for path in sorted((self.path / _PLAN).glob("*.yaml")):
            try:
                found[path.stem] = _plan_of(path)
            except DataError as error:
                _log.warning("%s, so its batch is planned again", error)
        return found

    def is_own(self, key: str) -> bool:
        """Returns whether a run was created by a sweep here: it has a plan, and its folder is not a symbolic link."""
        if _KEY.fullmatch(key) is None:
            return False
        run, plan = self.run(key).path, self.config_path(key)
        return plan.is_file() and run.is_dir() and not run.is_symlink() and run.resolve() == self.path.resolve() / key

    def keep_plan(self, batch: Batch) -> None:
        """Writes the configuration of a batch into the plan."""
        _write(self.config_path(batch.key), batch.config)

    def forget_plan(self, key: str) -> None:
        """Removes the configuration of a batch from the plan."""
        self.config_path(key).unlink(missing_ok=True)

    def prepare_run(self, key: str) -> RunFolder:
        """Prepares the folder of a batch for training: empties it if the run has ended, else keeps it to be resumed.

        Raises:
            RunError: the folder is a symbolic link.
        """
        run = self.run(key)
        if run.path.is_symlink():
            raise RunError(f"{printable(run.path)} is a link in the place of a run of this sweep: remove the link")
        if _has_ended(run):
            shutil.rmtree(run.path)
        run.path.mkdir(parents=True, exist_ok=True)
        return run

    def fail(self, batch: Batch, reason: str) -> None:
        """Records why a batch has no result, with its configuration if the run has not saved it."""
        run = self.run(batch.key)
        if not (run.path / CONFIG).is_file():
            _write(run.path / CONFIG, batch.config)
        run.fail(reason)

    def checkpoint_version(self, key: str) -> object:
        """Returns a value that is another one after each new checkpoint of a run."""
        try:
            found = self.checkpoint(key).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def checkpoint(self, key: str) -> Path:
        """Returns the path of a run's checkpoint."""
        return self.path / key / CHECKPOINT


def _has_ended(run: RunFolder) -> bool:
    """Returns whether a run has ended; removes a damaged summary, so that the run is resumed from its checkpoint."""
    try:
        return run.ended
    except DataError as error:
        _log.warning("%s, so the run resumes from its checkpoint, or starts again", error)
        (run.path / SUMMARY).unlink(missing_ok=True)
        (run.path / FAILURE).unlink(missing_ok=True)
        return False


def _plan_of(path: Path) -> dict[str, Any]:
    try:
        config = configuration.load_yaml(path)
        if not configuration.members(config) or not isinstance(config["model"], Mapping):
            raise ValueError("there are no members")
    except (OSError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{printable(path)} is not the plan of a batch ({printable(error)})") from error
    return config


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with written_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
