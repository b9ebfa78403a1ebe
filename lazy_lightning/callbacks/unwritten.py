"""Reports of files that could not be written, during the run and as an error at its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lazy_lightning.callbacks.printing import show
from lazy_lightning.errors import RunError
from lazy_lightning.modules.guarded_callback import short_reason

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


_log = logging.getLogger(__name__)


@contextmanager
def warn_if_unwritten(module: ObservableModule, path: Path) -> Iterator[None]:
    """Context for writing a file of a run, which reports a failure in one sentence and lets the run continue.

    The module records the file until a later attempt succeeds, and raises at the end of the fit if none does
    (:meth:`~lazy_lightning.modules.ObservedModule.on_fit_end`).
    """
    try:
        yield
    except Exception as error:
        sentence = _sentence(path, error)
        _log.debug("the traceback of this failure", exc_info=error)
        if module.unwritten.get(path) != sentence:  # a full disk is reported once for each file, not at every attempt
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
