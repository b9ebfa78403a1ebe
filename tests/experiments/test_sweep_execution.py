"""Execution of batches and the handling of each result, with fake workers that do not train."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lazy_lightning import experiments
from lazy_lightning.errors import RunError
from lazy_lightning.experiments import sweep_progress
from lazy_lightning.experiments.batching import Batch, MemberCost
from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.experiments.execution import Execution, run_sweep, stops_on_signal
from lazy_lightning.experiments.local_executor import LocalExecutor
from lazy_lightning.experiments.ray_executor import RayExecutor
from lazy_lightning.experiments.slurm_executor import SlurmExecutor
from lazy_lightning.experiments.sweep import BatchLimits, Sweep, SweepStatus
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_progress import SweepProgress
from lazy_lightning.experiments.sweep_spec import SweepSpec
from lazy_lightning.experiments.time_estimate import TimeEstimate
from lazy_lightning.experiments.worker_pool import (
    BatchResult,
    BatchStatus,
    ProgressMessage,
    Task,
    WorkerChannel,
    WorkerPool,
)
from lazy_lightning.runs import configuration
from lazy_lightning.runs.run_folder import RunFolder

ENDED, FAILED, STOPPED, MEMORY = (
    BatchResult(e) for e in (BatchStatus.ENDED, BatchStatus.FAILED, BatchStatus.STOPPED, BatchStatus.MEMORY)
)
DIED = BrokenProcessPool("killed")
End = BatchResult | Exception


def group(width: int = 8, alphas: tuple[float, ...] = (0.1,), seeds: int = 1) -> ConfigGroup:
    network = {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": width}}
    model = {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"network": network}}
    config = {"trainer": {"precision": "64-true"}, "model": model, "data": {"class_path": "Digits", "init_args": {}}}
    return ConfigGroup.of(config, {"model.network.width": width}, [(a, s) for a in alphas for s in range(seeds)])


def batch(width: int = 8, alphas: tuple[float, ...] = (0.1,), seeds: int = 1) -> Batch:
    one = group(width, alphas, seeds)
    return Batch(one, alphas, tuple(range(seeds)), MemberCost(1, 1.0, 1.0))


def leave_a_result(task: Task) -> None:
    """What a run writes that has ended."""
    config = yaml.safe_load(Path(task.config).read_text())
    members = [{"alpha": a, "seed": s, "stop": "max_steps", "failed": False} for a, s in configuration.members(config)]
    summary = {"members": members, "wall_seconds": 1.0, "width": None}
    Path(task.folder, "config.yaml").write_text(yaml.safe_dump(config))
    Path(task.folder, "summary.json").write_text(json.dumps(summary))


class FakeWorker:
    """A worker for whom each batch ends as the script says."""

    def __init__(self, script: Callable[[Task], End], seen: list[str]) -> None:
        self._script, self._seen = script, seen

    def start(self, task: Task) -> Future[BatchResult]:
        self._seen.append(task.key)
        end = self._script(task)
        if end == ENDED:
            leave_a_result(task)
        future: Future[BatchResult] = Future()
        future.set_exception(end) if isinstance(end, Exception) else future.set_result(end)
        return future

    def messages(self) -> list[ProgressMessage]:
        return []

    def end(self, at_once: bool) -> None:
        pass


class FakePool(WorkerPool):
    """Of some actors."""

    def __init__(self, script: Callable[[Task], End], workers: int = 1) -> None:
        self.seen: list[str] = []
        self.stops = 0
        self.workers = [FakeWorker(script, self.seen) for _ in range(workers)]

    def stop(self) -> None:
        self.stops += 1


def progress() -> SweepProgress:
    return SweepProgress(SweepStatus(frozenset("abcd"), frozenset("a"), {}), 1)


def executed(folder: Path, batches: list[Batch], script: Callable[[Task], End], workers: int = 1) -> FakePool:
    pool = FakePool(script, workers)
    Execution(SweepFolder(folder), LocalExecutor(pool), progress()).train(batches)
    return pool


def scripted(**ends: list[End]) -> Callable[[Task], End]:
    """By the batch's key, one after the other."""
    return lambda task: ends[f"_{task.key}"].pop(0)


def folders(path: Path) -> set[str]:
    return {p.name for p in path.iterdir() if p.is_dir()} - {"plan"}


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_in_the_order_of_the_list_and_whatever_happens(tmp_path: Path, workers: int) -> None:
    batches = [batch(width) for width in range(1, 7)]
    bad = {batches[1].key, batches[4].key}
    pool = executed(tmp_path, batches, lambda task: FAILED if task.key in bad else ENDED, workers)
    assert pool.seen == [b.key for b in batches]
    for b in batches:
        assert RunFolder(tmp_path / b.key).ended
        assert (RunFolder(tmp_path / b.key).failure is not None) == (b.key in bad)


def test_an_exception_of_the_worker_itself_is_the_reason(tmp_path: Path) -> None:
    one, other = batch(1), batch(2)
    executed(tmp_path, [one, other], lambda task: ValueError("odd") if task.key == one.key else ENDED)
    assert RunFolder(tmp_path / one.key).failure == "ValueError: odd"
    rows = RunFolder(tmp_path / one.key).rows("x")  # though the run has not got so far as to save its configuration
    assert [(row["status"], row["id"]) for row in rows] == [("failed", one.group.member_id((0.1, 0)))]
    assert RunFolder(tmp_path / other.key).ended


def test_a_process_may_die_once(tmp_path: Path) -> None:
    one, other = batch(1, seeds=4), batch(2)
    (tmp_path / one.key).mkdir()
    (tmp_path / one.key / "checkpoint.ckpt").touch()
    script = scripted(**{f"_{one.key}": [DIED, ENDED], f"_{other.key}": [ENDED]})
    pool = executed(tmp_path, [one, other], script)
    assert pool.seen == [one.key, one.key, other.key]  # goes on at once
    assert (tmp_path / one.key / "checkpoint.ckpt").exists()


@pytest.mark.parametrize("ends", [[DIED, DIED], [MEMORY]], ids=["died twice", "out of memory"])
def test_and_is_divided_then(tmp_path: Path, ends: list[End]) -> None:
    one = batch(1, alphas=(0.1, 1.0), seeds=2)
    first, second = one.halves()
    script = scripted(**{f"_{one.key}": ends, f"_{first.key}": [ENDED], f"_{second.key}": [ENDED]})
    pool = executed(tmp_path, [one], script)
    assert pool.seen[-2:] == [first.key, second.key]
    assert folders(tmp_path) == {first.key, second.key}
    assert set(SweepFolder(tmp_path).planned()) == {first.key, second.key}


@pytest.mark.parametrize("ends", [[DIED, DIED], [MEMORY]], ids=["died twice", "out of memory"])
def test_one_member_cannot_be_divided(tmp_path: Path, ends: list[End]) -> None:
    one = batch()
    executed(tmp_path, [one], scripted(**{f"_{one.key}": list(ends)}))
    assert RunFolder(tmp_path / one.key).failure is not None


def test_after_a_stop_nothing_begins(tmp_path: Path) -> None:
    batches = [batch(width) for width in range(1, 5)]
    pool = executed(tmp_path, batches, lambda task: STOPPED if task.key == batches[1].key else ENDED)
    assert pool.seen == [b.key for b in batches[:2]]
    assert folders(tmp_path) == set(pool.seen)
    assert len(SweepFolder(tmp_path).planned()) == 4  # to be gone on with
    assert not RunFolder(tmp_path / batches[1].key).ended


def test_a_death_after_a_stop_is_no_failure(tmp_path: Path) -> None:
    one, pool = batch(), FakePool(lambda task: DIED)
    execution = Execution(SweepFolder(tmp_path), LocalExecutor(pool), progress())
    start = pool.workers[0].start

    def stopping(task: Task) -> Future[BatchResult]:
        execution.stop()
        return start(task)

    pool.workers[0].start = stopping  # type: ignore[method-assign]
    execution.train([one])
    assert (execution.stopped, pool.stops, pool.seen) == (True, 1, [one.key])
    assert not RunFolder(tmp_path / one.key).ended


def test_a_run_that_has_ended_is_made_anew(tmp_path: Path) -> None:
    one = batch()
    executed(tmp_path, [one], lambda task: FAILED)
    (tmp_path / one.key / "checkpoint.ckpt").touch()
    executed(tmp_path, [one], lambda task: ENDED)
    assert {p.name for p in (tmp_path / one.key).iterdir()} == {"config.yaml", "summary.json"}


# ---------------------------------------------------------------------- until nothing is left


def trained(folder: Path, script: Callable[[Task], End], retry: bool = False, seeds: int = 3) -> tuple[Sweep, FakePool]:
    sweep = Sweep(SweepSpec("mine"), (group(seeds=seeds),), SweepFolder(folder))
    pool, shown = FakePool(script), progress()

    class Free:
        def of(self, rows: Any) -> Any:
            return lambda group: MemberCost(1, 1.0, 1.0)

    run_sweep(sweep, Execution(sweep.folder, LocalExecutor(pool), shown), shown, Free(), BatchLimits(1e9), retry)  # type: ignore[arg-type]
    return sweep, pool


def test_trained_until_all_members_are_completed(tmp_path: Path) -> None:
    sweep, pool = trained(tmp_path, lambda task: ENDED)
    assert len(pool.seen) == 1
    assert len(sweep.status(sweep.rows()).finished) == 3
    assert not trained(tmp_path, lambda task: ENDED)[1].seen
    assert len(trained(tmp_path, lambda task: ENDED, seeds=5)[1].seen) == 1


def test_what_fails_is_tried_once_a_command(tmp_path: Path) -> None:
    assert len(trained(tmp_path, lambda task: FAILED)[1].seen) == 1
    assert len(trained(tmp_path, lambda task: FAILED)[1].seen) == 0
    assert len(trained(tmp_path, lambda task: FAILED, retry=True)[1].seen) == 1
    sweep, pool = trained(tmp_path, lambda task: ENDED, retry=True)
    assert len(pool.seen) == 1
    assert len(sweep.status(sweep.rows()).finished) == 3


def test_a_run_whose_members_are_others_is_not_trained_for_ever(tmp_path: Path) -> None:
    def another(task: Task) -> BatchResult:
        config = yaml.safe_load(Path(task.config).read_text())
        config["data"]["init_args"]["n_train"] = 5
        Path(task.config).write_text(yaml.safe_dump(config))
        return ENDED

    with pytest.raises(RunError, match="its members are not found in the index"):
        trained(tmp_path, another)


# ---------------------------------------------------------------------- signals, workers, progress


def test_the_first_signal_stops_and_the_second_interrupts() -> None:
    calls: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with stops_on_signal(lambda: calls.append("stop"), lambda: calls.append("at once"), calls.append):
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls[0] == "stop"
        assert calls[1].startswith("SIGTERM: the batches stop after their present bursts")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert calls[2:] == ["at once"]
    assert signal.getsignal(signal.SIGTERM) is before


def echo(task: Task, channel: WorkerChannel) -> BatchResult:
    channel.put(ProgressMessage(task.key, 1, 0, 0.5))
    return BatchResult(BatchStatus.STOPPED if channel.stopping else BatchStatus.ENDED, task.folder)


def test_a_worker_in_this_process() -> None:
    pool = WorkerPool(echo, workers=0)
    (worker,) = pool.workers
    assert worker.start(Task("a", "", "folder")).result() == (BatchStatus.ENDED, "folder")
    assert pool.messages() == [("a", 1, 0, 0.5)]
    assert pool.messages() == []
    pool.stop()
    assert worker.start(Task("b", "", "")).result().status == BatchStatus.STOPPED
    pool.close()


@pytest.mark.parametrize(("threads", "workers", "each"), [(8, 2, 4), (8, 3, 2), (2, 4, 1), (8, 0, 8)])
def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch, threads: int, workers: int, each: int) -> None:
    """Those that torch would use here, and not all cores of a machine that may be shared."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    given = [worker._given[-1] for worker in WorkerPool(echo, workers).workers if hasattr(worker, "_given")]
    assert given == [each] * workers


def test_time_left() -> None:
    clock = TimeEstimate(workers=2)
    assert clock.seconds_left(0.0) is None
    slow, fast = batch(1, seeds=10), batch(2, seeds=10)  # ten seconds each, as estimated
    clock.pending = [slow, fast]
    clock.estimated, clock.taken = 1000.0, 2000.0  # what is done took twice as long as estimated
    assert clock.seconds_left(0.0) == pytest.approx(20.0, rel=0.05)  # two at once


class Terminal:
    """Where everything is shown."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def test_the_modules_of_progress_do_not_draw() -> None:
    """Rendering with rich is in sweep_display alone."""
    for module in ("sweep_progress", "time_estimate", "execution"):
        assert "rich" not in Path(experiments.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")


def test_what_is_shown_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "stdout", terminal)
    one, other = batch(8, seeds=3), batch(12, seeds=2)
    with SweepProgress(SweepStatus(frozenset("abcdefg"), frozenset("ab"), {"c": "why"}), 1) as shown:
        shown.submit(one, [other], begins=True)
        shown.update([ProgressMessage(one.key, 2, 1, 0.5)])
        assert shown.summary().startswith("3 of 7 members done, 2 failed, 1 running")
        assert "left" in shown.summary()
        shown.finish(one, 2, 1, True, "ended")
        assert shown.summary().startswith("4 of 7 members done, 2 failed, 0 running")
    assert "width 8" in terminal.text
    assert "4 of 7 members done, 2 failed" in terminal.text


def test_what_is_shown_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    one = batch(8, seeds=3)
    with progress() as shown:
        shown.submit(one, [], begins=True)
        shown.update([ProgressMessage(one.key, 2, 1, 0.5)])
        shown.finish(one, 2, 1, True, "ended, 1 failed")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("sweep: width 8")
    assert first.endswith("begins")
    assert "ended, 1 failed after" in last


def test_batches_in_a_queue_begin_with_their_first_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time in the queue is not the batch's own, neither in what is shown nor in the time left."""
    now = 0.0
    monkeypatch.setattr(sweep_progress, "time", SimpleNamespace(monotonic=lambda: now))
    batches = [batch(width) for width in (8, 12, 16)]
    with progress() as shown:
        for each in batches:
            shown.submit(each, [], begins=False)
        assert shown.summary() == "1 of 4 members done, 0 failed, 0 running, 3 queued"
        now = 1000.0
        shown.update([ProgressMessage(batches[0].key, 0, 0, 0.0)])
        assert "1 running, 2 queued, about 3 s left" in shown.summary()  # a second each by the cost model
        now = 1002.0
        shown.finish(batches[0], 1, 0, True, "ended")
        assert "about 4 s left" in shown.summary()  # it has taken twice its cost, and not 1002 s
        shown.finish(batches[1], 0, 0, False, "stopped, and resumes the next time")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:4]] == ["queued", "queued", "queued", "begins"]
    assert lines[4].endswith("ended after 2 s")
    assert lines[5].endswith("stopped, and resumes the next time")


def test_executors_of_other_machines_queue_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Queue(LocalExecutor):
        queues = True

    Execution(SweepFolder(tmp_path), Queue(FakePool(lambda task: ENDED)), progress()).train([batch()])
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["queued", "ended"]
    assert (LocalExecutor.queues, RayExecutor.queues, SlurmExecutor.queues) == (False, True, True)
