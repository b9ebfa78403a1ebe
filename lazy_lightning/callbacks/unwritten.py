"""Files that could not be written: each is told once, costs nothing else, and is known at the end of the run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lazy_lightning.callbacks.printing import show
from lazy_lightning.errors import RunError

if TYPE_CHECKING:
    from lazy_lightning.modules.observed_module import ObservedModule


@contextmanager
def warn_if_unwritten(module: ObservedModule, path: Path) -> Iterator[None]:
    """Around the writing of a file of a run: tells of a disk that refuses it, in one sentence, and lets the run go on.

    The module notes the file until it is written after all, and raises at the end of the fit if it never was
    (:meth:`~lazy_lightning.modules.ObservedModule.on_fit_end`).
    """
    try:
        yield
    except (RunError, OSError) as error:
        sentence = str(error) if isinstance(error, RunError) else f"cannot write {path} ({error.strerror or error})"
        if module.unwritten.get(path) != sentence:  # a full disk is told once a file, not at every attempt
            show(f"error: {sentence}", file=sys.stderr)
        module.unwritten[path] = sentence
    else:
        module.unwritten.pop(path, None)
