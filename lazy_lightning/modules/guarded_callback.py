"""GuardedCallback, a base class of callbacks whose failure is reported once and does not end the run."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback

from lazy_lightning.errors import LazyLightningError, MemoryShortageError
from lazy_lightning.plain_text import printable

_log = logging.getLogger(__name__)

_BEFORE_TRAINING = ("on_fit_start", "on_train_start", "on_sanity_check_start")
"""Hooks in which a LazyLightningError ends the run, because nothing has been trained yet that would be lost."""
_AFTER_TRAINING = ("on_train_end", "on_fit_end")
"""Hooks in which results are written; the results of a hook that fails are missing from the run."""


class GuardedCallback(Callback):
    """A Lightning callback whose hooks report an exception instead of raising it.

    The hooks ``on_...`` and ``state_dict`` of every subclass are wrapped: an exception is logged once for each hook
    and the trainer goes on to the other callbacks, so that a figure that cannot be drawn does not cost the summary.
    A hook that fails when training has ended is also noted in the module's ``unfinished``, and the fit ends with an
    error once all callbacks have run.
    A :class:`~lazy_lightning.errors.LazyLightningError` that is raised before training starts still ends the run, as
    do KeyboardInterrupt and SystemExit at any time.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if callable(method) and (name.startswith("on_") or name == "state_dict"):
                setattr(cls, name, _guarded(name, method))


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(self: GuardedCallback, *args: Any, **kwargs: Any) -> Any:
        try:
            return hook(self, *args, **kwargs)
        except Exception as error:
            if isinstance(error, LazyLightningError) and name in _BEFORE_TRAINING:
                raise
            report_failure(self, name, error)
            _note_if_unfinished(self, name, error, *args)
        return {} if name == "state_dict" else None

    return call


def report_failure(callback: object, action: str, error: Exception, consequence: str = "the run goes on") -> None:
    """Logs the failure of a callback, its reason and its consequence, once for each callback and action.

    Args:
        callback: the callback or logger that raised.
        action: the name of the hook or method.
        error: the exception that was raised.
        consequence: a clause that describes how the run continues without the callback.
    """
    reported = callback.__dict__.setdefault("_reported_failures", set())
    if action in reported:
        return
    reported.add(action)
    _log.warning("%s failed in %s (%s); %s", type(callback).__name__, action, short_reason(error), consequence)
    _log.debug("the traceback of this failure", exc_info=error)


def _note_if_unfinished(callback: object, hook: str, error: Exception, *args: Any) -> None:
    """Notes in the module, the second argument of the hooks after training, that results of the callback are missing.

    A module of another package has no such record; there the warning is the only report.
    """
    unfinished = getattr(args[1], "unfinished", None) if hook in _AFTER_TRAINING and len(args) > 1 else None
    if isinstance(unfinished, dict):
        unfinished[type(callback).__name__, hook] = short_reason(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception reports that memory is exhausted or would be, on the host or on a device."""
    message = str(error)
    return isinstance(error, (MemoryError, MemoryShortageError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in message or "out of memory" in message)
    )


def short_reason(error: Exception) -> str:
    """Returns the exception's type and message on one line of about 300 characters at most."""
    message = printable(" ".join(str(error).split()))
    short = message if len(message) <= 300 else message[:297] + "..."
    kind = type(error).__name__
    if is_out_of_memory(error) and not isinstance(error, MemoryShortageError):  # its message names a remedy already
        return f"out of memory: {kind}: {short}; fewer samples of the observer or a smaller model.chunk_size need less"
    return f"{kind}: {short}" if short else kind
