"""DisableCallbacks, which removes callbacks from a run by name, including the default ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, Trainer

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.deprecations import present_path
from lazy_lightning.errors import ConfigError, suggestion


class DisableCallbacks(Callback):
    """Callback that removes other callbacks from the trainer before anything is measured.

    In YAML::

        trainer:
          callbacks+:
            - class_path: lazy_lightning.callbacks.DisableCallbacks
              init_args: {names: [TangentDeparture, LearningCurves]}

    Args:
        names: class names of observers, sinks or other callbacks, as listed in :mod:`lazy_lightning.callbacks`. The
            name of a callback that the run does not have has no effect.

    Raises:
        ConfigError: at the start of the run, if there is no class with one of the names.
    """

    def __init__(self, names: list[str] | str) -> None:
        check_arguments(DisableCallbacks, locals())
        given = [names] if isinstance(names, str) else list(names)
        self.names: Sequence[str] = [present_path(name) for name in given]

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Removes the callbacks from the trainer."""
        from lazy_lightning import callbacks  # which imports this module

        present: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        known = {type(callback).__name__ for callback in present} | set(callbacks.__all__)
        for name in self.names:
            if name not in known:
                raise ConfigError(
                    f"DisableCallbacks: there is no callback {name!r}"
                    f"{suggestion(name, known) or ': the known names are ' + ', '.join(sorted(known))}"
                )
        # A new list, because the trainer is iterating over the present one.
        trainer.callbacks = [c for c in present if type(c).__name__ not in self.names]  # type: ignore[attr-defined]
