"""Locks of folders on one machine and, by leases, on several machines of a shared file system."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from lazy_lightning.runs import lease, lock
from lazy_lightning.runs.lease import Lease
from lazy_lightning.runs.lock import HeldError, held_lock


@pytest.fixture
def on_another_machine(monkeypatch: pytest.MonkeyPatch):
    """Makes this process that of a machine which sees the files of the first, but not its file locks."""

    def move(name: str = "second") -> None:
        monkeypatch.setattr(lease, "_machine", lambda: name)

    return move


def test_the_lease_of_a_living_holder_on_another_machine_is_held(tmp_path, on_another_machine):
    first = Lease(tmp_path / "lease", beat=0.05)
    assert first.acquire() is None
    on_another_machine()
    start = time.monotonic()
    assert Lease(tmp_path / "lease", patience=20).acquire() == os.uname().nodename
    assert time.monotonic() - start < 10  # one change is enough
    first.release()
    assert Lease(tmp_path / "lease").acquire() is None


def test_the_lease_of_a_dead_holder_on_another_machine_is_taken_over(tmp_path, on_another_machine):
    dead = Lease(tmp_path / "lease", beat=3600)
    dead.acquire()
    on_another_machine()
    heir = Lease(tmp_path / "lease", patience=0.3)
    assert heir.acquire() is None
    dead.release()  # no longer its own: the file stays
    assert (tmp_path / "lease").is_file()
    heir.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_left_on_this_machine_is_replaced_without_waiting(tmp_path):
    Lease(tmp_path / "lease", beat=3600).acquire()
    start = time.monotonic()
    assert Lease(tmp_path / "lease", beat=3600).acquire() is None
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 3}'])
def test_a_damaged_lease_is_that_of_a_dead_holder(tmp_path, text):
    (tmp_path / "lease").write_text(text)
    assert Lease(tmp_path / "lease", patience=0.2).acquire() is None


def test_clocks_and_times_of_files_do_not_decide(tmp_path, on_another_machine):
    for age in (-1e7, 1e7):
        first = Lease(tmp_path / f"{age}", beat=0.05)
        first.acquire()
        path, stop = tmp_path / f"{age}", threading.Event()

        def shift(path: Path = path, age: float = age, stop: threading.Event = stop) -> None:
            while not stop.wait(0.01):
                os.utime(path, (time.time() + age, time.time() + age))

        shifting = threading.Thread(target=shift)
        shifting.start()
        on_another_machine(f"{age}")
        assert Lease(path, patience=20).acquire() is not None
        stop.set()
        shifting.join()
        first.release()


def test_of_many_machines_that_take_over_a_dead_lease_one_succeeds(tmp_path, monkeypatch):
    whole = lease._field
    monkeypatch.setattr(lease, "_field", lambda text, name: None if name == "machine" else whole(text, name))
    (tmp_path / "lease").write_text(json.dumps({"token": "dead", "machine": "dead"}))
    leases = [Lease(tmp_path / "lease", beat=0.02, patience=0.3) for _ in range(8)]
    held: list[str | None] = []
    threads = [threading.Thread(target=lambda one=one: held.append(one.acquire())) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.count(None) == 1
    for one in leases:
        one.release()


def test_a_lock_is_held_and_free_again(tmp_path, on_another_machine, monkeypatch):
    monkeypatch.setattr(Lease.__init__, "__defaults__", (True, 0.05, 20))
    with held_lock(tmp_path / ".lock", "busy"):
        with pytest.raises(HeldError, match="busy"), held_lock(tmp_path / ".lock", "busy"):
            pass
        monkeypatch.setattr(lock, "FileLock", _UnseenLock)
        on_another_machine()
        with pytest.raises(HeldError, match=r"busy \(its lock is held on "), held_lock(tmp_path / ".lock", "busy"):
            pass
    with held_lock(tmp_path / ".lock", "busy"):
        assert (tmp_path / ".lock.lease").is_file()
    assert not (tmp_path / ".lock.lease").exists()


class _UnseenLock:
    """A file lock that other machines do not see."""

    def __init__(self, path: Path) -> None:
        pass

    def acquire(self, timeout: float) -> None:
        pass

    def release(self) -> None:
        pass
