"""Malformed files by the hundred: none may end in a traceback or a hang, run code, or be accepted as what it is not.

    PYTHONPATH=tests python tests/faults/campaign.py --count 1000 --seed 0

prints counts by kind and every violation, and ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import functools
import itertools
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from unittest import mock

import arrays
import checkpoints
import stores
from canary import canary
from configurations import malformed_configurations
from trial import REFUSED, Answer, Trial, WrongAnswerError, told

LIMIT = 60.0
"""Seconds; most trials take a tenth of one."""
SOUND = b"model: {init_args: {dt: 0.5}}\n"
"""A configuration that is accepted; the others are malformed."""
TRACE = "touched"
"""What code in the files would make."""


class HangError(BaseException):
    """A trial went over its time; a BaseException, so that nothing in the program takes it for its own."""


def configurations(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """``count`` malformed configurations of ``fit``."""
    if count and _configured(folder / "own.yaml", SOUND) is Answer.REFUSED:
        raise RuntimeError("the sound configuration of the campaign is refused")
    for case in malformed_configurations(count, seed):
        act = functools.partial(_configured, folder / "own.yaml", case.content)
        yield Trial(f"configuration, {case.kind}", case.name, act, REFUSED)


def _configured(path: Path, content: bytes) -> Answer:
    from command_line import QUIET

    path.write_bytes(content)
    done, _ = told([*QUIET, "--model.stop.max_steps=1", "--config", str(path)])
    return Answer.OTHER if done else Answer.REFUSED


KINDS: dict[str, Callable[[Path, int, int], Iterator[Trial]]] = {
    "configurations": configurations,
    "checkpoints": checkpoints.trials,
    "arrays": arrays.trials,
    "stores": stores.trials,
}
SHARES = {"configurations": 0.35, "checkpoints": 0.2, "arrays": 0.25, "stores": 0.2}


class Outcome:
    """Counts by kind and answer, and what went wrong."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = collections.defaultdict(Counter)
        self.violations: list[str] = []

    def __str__(self) -> str:
        words = [*(answer.value for answer in Answer), "violation"]
        lines = [f"{kind:32} {sum(n.values()):5}  " + ", ".join(f"{n[w]} {w}" for w in words if n[w])
            for kind, n in sorted(self.counts.items())]  # fmt: skip
        total = sum(sum(n.values()) for n in self.counts.values())
        return "\n".join([*lines, f"{total} malformed files, {len(self.violations)} violations"])


def run(folder: Path, counts: dict[str, int], seed: int, show: Callable[[str], None] = lambda line: None) -> Outcome:
    """Runs trials of each kind.

    Args:
        folder: an empty one, which becomes the working folder meanwhile.
        counts: how many of each of :data:`KINDS`.
        seed: of the generators.
        show: is called with each violation as it is found.
    """
    result = Outcome()
    with _prepared(folder), canary() as called:
        for name, count in counts.items():
            (folder / name).mkdir()
            for trial in itertools.islice(KINDS[name](folder / name, count, seed), count):
                begin = time.monotonic()
                answer, wrong = _attempt(trial, called)
                result.counts[trial.kind]["violation" if wrong else answer] += 1
                if wrong:
                    result.violations.append(f"{trial.kind}: {trial.name}: {wrong}")
                    show(f"VIOLATION {time.monotonic() - begin:.1f} s {result.violations[-1]}")
    return result


def _attempt(trial: Trial, called: list[str]) -> tuple[str, str]:
    """The answer, and what is wrong with it."""
    try:
        with _limited(LIMIT):
            answer = trial.act()
        wrong = "" if answer in trial.allowed else answer.value
        word = answer.value
    except (HangError, WrongAnswerError) as error:
        word, wrong = "", f"{type(error).__name__}: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "lazy_lightning" in f.filename]
        at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        word, wrong = "", " ".join(f"traceback{at}: {type(error).__name__}: {error}".split())[:400]
    if called or Path(TRACE).exists():
        wrong = f"code was executed: {called or TRACE}"
        called.clear()
        if Path(TRACE).is_dir():
            Path(TRACE).rmdir()
        else:
            Path(TRACE).unlink(missing_ok=True)
    return word, wrong


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _prepared(folder: Path) -> Iterator[None]:
    """The working folder, no figures, which take seconds, and no warnings, which are not errors here."""
    from lazy_lightning.callbacks import LearningCurves
    from lazy_lightning.cli.program import DEBUG_VARIABLE

    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            mock.patch.object(LearningCurves, "on_train_end"),
            mock.patch.dict(os.environ),
            warnings.catch_warnings(),
        ):
            os.environ.pop(DEBUG_VARIABLE, None)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(before)


def main() -> int:
    """The long campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="malformed files in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the generators (default: 0)")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    given = parser.parse_args()
    shares = {given.only: 1.0} if given.only else SHARES
    faulthandler.enable()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        counts = {name: round(given.count * share) for name, share in shares.items()}
        result = run(Path(folder), counts, given.seed, functools.partial(print, flush=True))
    print(f"{result}, in {time.monotonic() - begin:.0f} s, seed {given.seed}")
    return int(bool(result.violations))


if __name__ == "__main__":
    sys.exit(main())
