"""Random SIGKILLs: runs and sweeps that are killed at random times and resumed end as if nothing had happened.

    PYTHONPATH=tests python tests/faults/kills.py --kills 50 --seed 0

prints counts by kind and every violation, and ends with 1 if there is one. The final arrays, curves and weights of each
killed run are compared with those of an undisturbed one to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rank_processes import torchrun

from lazy_lightning.callbacks import LearningCurves
from lazy_lightning.cli import main as command_line
from lazy_lightning.runs import load_runs

LIMIT = 240.0
"""Seconds that a command may take before it counts as hanging; starting Ray takes half a minute on a loaded machine."""
LIMIT_AFTER_LOSS = 30.0
"""Seconds within which the ranks that are left end; most need two."""
ATTEMPTS = 6
"""Commands of one trial at most; the last ones are not killed."""
_BOTH = """
trainer:
  enable_progress_bar: false
  accelerator: cpu
  callbacks+: {class_path: lazy_lightning.callbacks.RunCheckpoint, init_args: {every_seconds: 0.05}}
"""
FLOW = f"""{_BOTH}
model:
  class_path: lazy_lightning.modules.FlowModule
  init_args:
    network: {{class_path: lazy_lightning.nn.FC, init_args: {{width: 8, depth: 2}}}}
    alpha: [0.1, 10.0]
    seeds: 2
    dt: 1.0e-3
    controller: {{class_path: ConstantStep}}
    stop: {{margin: null, max_steps: 900}}
data:
  class_path: lazy_lightning.data.Digits
  init_args: {{n_train: 40, n_test: 30, pca: 4}}
"""
MINI_BATCH = f"""{_BOTH}
model: {{init_args: {{network: {{init_args: {{width: 8}}}}, alpha: [0.1, 10.0], seeds: 2, search: {{steps: 3}}}}}}
data: {{init_args: {{n_train: 60, n_test: 30, batch_size: 20}}}}
"""
SWEEP = "{grid: {model.network.width: [8, 12], alpha: [0.1, 10.0], seeds: 1}}"


@dataclass(frozen=True)
class Kind:
    """What is killed."""

    command: Callable[[Path], list[str]]
    """Arguments of the command line that starts it anew in a folder."""
    results: Callable[[Path], dict[str, Any]]
    ranks: int = 1
    needs: str = ""
    """The package without which it is left out."""


# ---------------------------------------------------------------------- what is run


def _configured(place: Path, content: str) -> str:
    path = place / "own.yaml"
    path.write_text(content)
    return str(path)


def _fit(place: Path, configurations: Sequence[str], *more: str) -> list[str]:
    """Resumes the run in a folder where there is one, which a user does by hand."""
    if list(place.glob("runs/*/run/config.yaml")):
        return ["fit", "--resume", str(next(place.glob("runs/*/run"))), *more]
    given = [word for path in configurations for word in ("--config", path)]
    return ["fit", *given, "--trainer.logger.version=run", f"--trainer.logger.save_dir={place / 'runs'}", *more]


def _flow(place: Path) -> list[str]:
    return _fit(place, [_configured(place, FLOW)])


def _mini_batch(place: Path) -> list[str]:
    return _fit(place, ["digits_minibatch.yaml", _configured(place, MINI_BATCH)], "--trainer.max_epochs=40")


def _on_two_ranks(command: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    return lambda place: [*command(place), "--trainer.strategy=ddp", "--trainer.devices=2"]


def _sweep(place: Path) -> list[str]:
    (place / "grid.yaml").write_text(SWEEP)
    files = ["--config", _configured(place, FLOW), "--sweep", str(place / "grid.yaml")]
    return ["sweep", *files, "--out", str(place / "out"), "--workers=0"]


def _sweep_with_a_worker(place: Path) -> list[str]:
    return [*_sweep(place)[:-1], "--workers=1"]


def _sweep_on_ray(place: Path) -> list[str]:
    """Without figures, which the workers of Ray would draw."""
    command = _sweep(place)
    without = "{class_path: lazy_lightning.callbacks.DisableCallbacks, init_args: {names: [LearningCurves]}}"
    callbacks = _BOTH.rstrip().rpartition("callbacks+: ")[2]
    _configured(place, FLOW.replace(callbacks, f"[{callbacks}, {without}]", 1))
    return [*command[:-1], "--executor=ray", "--workers=1"]


# ---------------------------------------------------------------------- what it leaves


def _results_of_run(place: Path) -> dict[str, Any]:
    run = next(place.glob("runs/*/run"))
    checkpoint = torch.load(run / "checkpoint.ckpt", weights_only=True)
    return {
        "outputs": (run / "outputs.safetensors").read_bytes(),
        "curves": pd.read_parquet(run / "curves.parquet").drop(columns="wall"),
        **{f"state_dict {name}": value for name, value in checkpoint["state_dict"].items()},
        **{f"optimizer {name}": value for name, value in _tensors(checkpoint["optimizer_states"])},
    }


def _results_of_sweep(place: Path) -> dict[str, Any]:
    table = load_runs(place / "out", duplicates=True)
    outputs = {path.parent.name: path.read_bytes() for path in (place / "out").glob("*/outputs.safetensors")}
    return {"table": pd.DataFrame(table.drop(columns=["wall_seconds", "path"])), **outputs}


def _tensors(node: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, torch.Tensor):
            yield f"{name}.{key}", value
        else:
            yield from _tensors(value, f"{name}.{key}")


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of results that are not equal to the bit."""
    found = sorted(set(one) ^ set(other))
    for name in set(one) & set(other):
        a, b = one[name], other[name]
        if isinstance(a, torch.Tensor):
            same = torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
        else:
            same = a.equals(b) if isinstance(a, pd.DataFrame) else a == b
        if not same:
            found.append(name)
    return found


KINDS = {
    "fit": Kind(_flow, _results_of_run),
    "sweep": Kind(_sweep, _results_of_sweep),
    "fit on 2 ranks": Kind(_on_two_ranks(_flow), _results_of_run, ranks=2),
    "mini-batch fit": Kind(_mini_batch, _results_of_run),
    "sweep with a worker": Kind(_sweep_with_a_worker, _results_of_sweep),
    "mini-batch fit on 2 ranks": Kind(_on_two_ranks(_mini_batch), _results_of_run, ranks=2),
    "sweep on Ray": Kind(_sweep_on_ray, _results_of_sweep, needs="ray"),
}


def installed(kinds: Sequence[str], show: Callable[[str], None] = lambda line: None) -> list[str]:
    """Returns the kinds that can run here; the others are left out with a reason.

    Args:
        kinds: of :data:`KINDS`.
        show: is called with a line about each kind that is left out.
    """
    found = []
    for name in kinds:
        needs = KINDS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            show(f"{name}: left out, because {needs} is not installed (pip install 'lazy-lightning[cluster]')")
        else:
            found.append(name)
    return found


# ---------------------------------------------------------------------- processes


def _process(arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
    os.setsid()  # a group of its own, with its workers
    os.environ.update(environment)
    LearningCurves.on_train_end = lambda *args: None  # type: ignore[method-assign]  # takes longer than the run
    with log.open("a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            code = command_line(arguments)
    os._exit(code)


def _started(kind: Kind, place: Path) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments, context = kind.command(place), multiprocessing.get_context("fork")
    processes = []
    for rank in range(kind.ranks):
        environment = torchrun(rank, kind.ranks, port) if kind.ranks > 1 else {}
        processes.append(context.Process(target=_process, args=(arguments, environment, place / f"log_{rank}")))
        processes[-1].start()
    return processes


def _workers(process: int) -> list[int]:
    """Workers of a sweep that a process has started, itself or through Ray, where /proc is there."""
    parents, stats = {process}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            stats[int(path.parent.name)] = (
                int(path.read_text().rpartition(")")[2].split()[1]),
                (path.parent / "cmdline").read_text(),
            )
    while children := {pid for pid, (parent, _) in stats.items() if parent in parents} - parents:
        parents |= children
    words = ("spawn_main", "ray::_called")
    return sorted(pid for pid in parents - {process} if any(word in stats[pid][1] for word in words))


def _ended(processes: Sequence[BaseProcess], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    return all(process.exitcode is not None for process in processes)


def _cleared(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


# ---------------------------------------------------------------------- trials


class Outcome:
    """Counts of kills and completed commands by kind, and what went wrong."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.violations: list[str] = []

    @property
    def kills(self) -> int:
        return sum(counts["kills"] for counts in self.counts.values())

    def __str__(self) -> str:
        lines = [
            f"{kind:27} {n['kills']:3} kills, {n['trials']:3} runs resumed and equal to the bit"
            for kind, n in self.counts.items()
        ]
        return "\n".join([*lines, f"{self.kills} SIGKILLs, {len(self.violations)} violations"])


def run(
    folder: Path, kills: int, seed: int, kinds: Sequence[str] = (), show: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Kills and resumes runs of each kind in turn.

    Args:
        folder: an empty one.
        kills: the number of SIGKILLs at least.
        seed: of the times and of the ranks that are killed.
        kinds: of :data:`KINDS`; all by default.
        show: is called with a line about each trial.
    """
    rng, result = random.Random(seed), Outcome()
    kinds = installed(kinds or list(KINDS), show)
    undisturbed: dict[str, tuple[float, dict[str, Any]]] = {}
    for number, name in enumerate(itertools.cycle(kinds)):
        if result.kills >= kills:
            return result
        kind, counts = KINDS[name], result.counts.setdefault(name, Counter())
        if name not in undisturbed:
            undisturbed[name] = _undisturbed(kind, folder / f"undisturbed_{number}")
        seconds, expected = undisturbed[name]
        place = folder / f"trial_{number}"
        place.mkdir()
        before = counts["kills"]
        wrong = _trial(kind, place, seconds, expected, rng, counts)
        if wrong:
            result.violations.append(f"{name}, trial {number}: {wrong}")
        else:
            counts["trials"] += 1
            shutil.rmtree(place)
        show(f"{name}, trial {number}: {counts['kills'] - before} kills: {wrong or 'equal to the bit'}")
        if number >= 20 * kills:
            raise RuntimeError(f"{result.kills} kills in {number} trials: the runs end before they are killed")
    raise AssertionError


def _undisturbed(kind: Kind, place: Path) -> tuple[float, dict[str, Any]]:
    place.mkdir()
    begin = time.monotonic()
    processes = _started(kind, place)
    if not _ended(processes, LIMIT) or any(process.exitcode for process in processes):
        _cleared(processes)
        raise RuntimeError(f"an undisturbed run failed: {(place / 'log_0').read_text()[-2000:]}")
    return time.monotonic() - begin, kind.results(place)


def _trial(
    kind: Kind, place: Path, seconds: float, expected: Mapping[str, Any], rng: random.Random, counts: Counter[str]
) -> str:
    """What is wrong after one to three kills, each followed by a resumption."""
    killed, wanted = 0, rng.choice((1, 1, 2, 3))
    for _ in range(ATTEMPTS):
        begin = time.time()
        processes = _started(kind, place)
        try:
            if killed < wanted and not _ended(processes, rng.uniform(0.05, 1.0) * seconds):
                killed += 1
                counts["kills"] += 1
                wrong = _kill(kind, processes, rng, begun=_newest_checkpoint(place) > begin)
                if wrong:
                    return wrong
                if any(process.exitcode for process in processes):
                    continue
            if not _ended(processes, LIMIT):
                return f"no end after {LIMIT:g} s"
        finally:
            _cleared(processes)
        codes = [process.exitcode for process in processes]
        if any(codes):
            return f"exit codes {codes}: {(place / 'log_0').read_text()[-600:]!r}"
        return ", ".join(differences(kind.results(place), expected))
    return f"not resumed after {ATTEMPTS} commands: {(place / 'log_0').read_text()[-600:]!r}"


def _newest_checkpoint(place: Path) -> float:
    """When the last checkpoint below a folder was written; 0 if there is none."""
    return max((path.stat().st_mtime for path in place.rglob("checkpoint.ckpt")), default=0.0)


def _kill(kind: Kind, processes: Sequence[BaseProcess], rng: random.Random, begun: bool) -> str:
    """Kills a process, a worker of a sweep, or one of several ranks, whose others must end by themselves.

    Ranks that wait for one to join the group, which may take minutes, are ended by their launcher, here by this one.

    Args:
        kind: what is run.
        processes: one for each rank.
        rng: chooses the victim.
        begun: whether this session has saved a checkpoint, so that all ranks have joined.
    """
    victim = rng.choice(processes)
    workers = _workers(victim.pid or 0)
    if workers and rng.random() < 0.5:
        os.kill(rng.choice(workers), signal.SIGKILL)
        return "" if _ended(processes, LIMIT) else f"no end {LIMIT:g} s after its worker was killed"
    if victim.pid is not None:
        os.kill(victim.pid, signal.SIGKILL)
    if kind.ranks == 1:
        victim.join()
        return ""
    others = [process for process in processes if process is not victim]
    if not begun:
        _cleared(processes)
    elif not _ended(others, LIMIT_AFTER_LOSS):
        return f"the other ranks go on {LIMIT_AFTER_LOSS:g} s after rank {processes.index(victim)} was killed"
    victim.join()
    return ""


def main() -> int:
    """The long campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs at least (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the times (default: 0)")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    given = parser.parse_args()
    if given.only and not installed([given.only], print):
        return 2
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        kinds = [given.only] if given.only else []
        result = run(Path(folder), given.kills, given.seed, kinds, lambda line: print(line, flush=True))
        for violation in result.violations:
            print(f"VIOLATION {violation}")
    print(f"{result}, in {time.monotonic() - begin:.0f} s, seed {given.seed}")
    return int(bool(result.violations))


if __name__ == "__main__":
    sys.exit(main())
