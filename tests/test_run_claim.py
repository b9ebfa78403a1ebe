"""Two runs never share a folder, and a refused one leaves none."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import QUIET, error_of
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lazy_lightning.cli.run_claim import claimed_folders
from lazy_lightning.errors import ConfigError


def claim(folder: Path, begin: Any, found: Any) -> None:
    """What each process does: waits for the others, then claims five folders."""
    begin.wait()
    for _ in range(5):
        logger = TensorBoardLogger(folder, name="flow")
        with claimed_folders(SimpleNamespace(loggers=[logger])):  # type: ignore[arg-type]
            found.put(logger.log_dir)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_runs_that_start_together_have_folders_of_their_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, found = context.Barrier(4), context.Queue()
    workers = [context.Process(target=claim, args=(tmp_path, begin, found)) for _ in range(4)]
    for worker in workers:
        worker.start()
    folders = [found.get(timeout=60) for _ in range(20)]
    for worker in workers:
        worker.join(timeout=60)
    assert len(set(folders)) == 20
    assert all(Path(folder).is_dir() for folder in folders)


def test_a_given_version_is_not_claimed(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="flow", version="mine")
    with claimed_folders(SimpleNamespace(loggers=[logger])):  # type: ignore[arg-type]
        assert not (tmp_path / "flow" / "mine").exists()


def test_what_a_run_has_written_stays_when_it_fails(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="flow")
    claimed = claimed_folders(SimpleNamespace(loggers=[logger]))  # type: ignore[arg-type]
    claimed.__enter__()
    (Path(logger.log_dir) / "curves.parquet").write_text("")
    error = ConfigError("too late")
    assert not claimed.__exit__(ConfigError, error, None)
    assert (tmp_path / "flow" / "version_0" / "curves.parquet").is_file()


@pytest.mark.usefixtures("own_folder")
def test_a_refused_run_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """The loss does not fit the task, which is known when the module is set up."""
    data = ["--data=TeacherStudent", "--data.d=4", "--data.n_train=9", "--data.n_test=5"]
    assert "regression" in error_of([*QUIET, *data], capsys)
    assert not list(Path().rglob("version_*"))
