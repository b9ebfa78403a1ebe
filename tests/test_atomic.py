"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lazy_lightning.errors import RunError
from lazy_lightning.runs.atomic import require_writable, written_atomically


def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with written_atomically(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "all of it"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_file_its_name_and_new_folders_are_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(os.fstat(handle).st_ino), flush(handle)))
    path = tmp_path / "new" / "folder" / "a.txt"
    with written_atomically(path) as temporary:
        temporary.write_text("all of it")
        assert not flushed
    expected = [each.stat().st_ino for each in (path, *path.parents[:3])]
    assert flushed[:4] == expected


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_old_file_survives_an_error(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half() -> None:
        with written_atomically(path) as temporary:
            temporary.write_text("half of")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No space left on device"), written_atomically(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"), written_atomically(tmp_path / "file" / "a"):
        pass
    with pytest.raises(RunError, match="cannot write"):
        require_writable(tmp_path / "file" / "folder" / "run")


def test_asking_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    require_writable(Path("c/d"))
    assert not list(tmp_path.iterdir())
