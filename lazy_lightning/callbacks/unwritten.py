"""Files that could not be written: each is told once, costs nothing else, and is known at the end of the run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lazy_lightning.callbacks.printing import show
from lazy_lightning.errors import RunError
from lazy_lightning.guarded import short_reason

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


_log = logging.getLogger(__name__)


@contextmanager
def warn_if_unwritten(module: ObservableModule, path: Path) -> Iterator[None]:
    """Around the writing of a file of a run: reports any failure in one sentence, and lets the run go on.

    The module notes the file until it is written after all, and raises at the end of the fit if it never was
    (:meth:`~lazy_lightning.modules.ObservedModule.on_fit_end`).
    """
    try:
        yield
    except Exception as error:
        sentence = _sentence(path, error)
        _log.debug("the traceback of this failure", exc_info=error)
        if module.unwritten.get(path) != sentence:  # a full disk is told once a file, not at every attempt
            show(f"error: {sentence}", file=sys.stderr)
        module.unwritten[path] = sentence
    else:
        module.unwritten.pop(path, None)


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, RunError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot write {path} ({error.strerror or error})"
    return f"cannot write {path} ({short_reason(error)})"
