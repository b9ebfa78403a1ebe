"""ObserverRunner: the observers of a run, called at every observation, whatever one of them raises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError, LazyLightningError
from lazy_lightning.modules.guarded_callback import is_out_of_memory, report_failure
from lazy_lightning.modules.observation import Observation, Observer


class ObserverRunner:
    """Calls the observers of a trainer in order and collects their columns.

    An observer that raises is not called again, also after a resume: its columns are NaN from then on, and the failure
    is logged once. The first observation is w0, so what cannot be measured at all is reported before training.
    """

    def __init__(self, failed: Mapping[str, Sequence[str]] | None = None) -> None:
        self.failed = {key: list(names) for key, names in (failed or {}).items()}
        """Columns of each failed observer, by its key; part of the checkpoint."""
        self._columns: dict[str, list[str]] = {}

    def check(self, module: Any) -> None:
        """Lets each observer compare its settings with the run, before training.

        Raises:
            LazyLightningError: the settings of an observer do not fit the run.
        """
        for key, observer in self._keyed(module.trainer.callbacks):
            try:
                if key not in self.failed and observer.applies_to(module):
                    _require_inputs(observer, module)
                    observer.check(module)
            except LazyLightningError:
                raise
            except Exception as error:
                self._fail(key, observer, "check", error)

    def measure(self, module: Any, observation: Observation, columns: dict[str, Tensor]) -> None:
        """Adds the columns of all observers, those that use other columns last.

        Args:
            module: in training.
            observation: whose ``columns`` these are.
            columns: filled here; every value is (E,).
        """
        own = frozenset(columns)
        keyed = self._keyed(module.trainer.callbacks)
        for key, observer in sorted(keyed, key=lambda pair: pair[1].looks_at_others):
            if key not in self.failed:
                try:
                    if not observer.applies_to(module):
                        continue
                    measured = _checked(observer.observe(module, observation), observation.state.t, own)
                except Exception as error:
                    self._fail(key, observer, "observe", error)
                else:
                    self._columns[key] = list(measured)
                    columns.update(measured)
            if key in self.failed:
                missing = torch.full_like(observation.state.t, torch.nan)
                columns.update({name: missing for name in self.failed[key] if name not in own})

    def _fail(self, key: str, observer: Observer, action: str, error: Exception) -> None:
        names = self._columns.get(key) or list(observer.column_names)
        self.failed[key] = names
        shown = f"columns {', '.join(names)} are" if names else "what it measures is"
        report_failure(observer, action, error, f"{shown} NaN from here on, and the run goes on")
        if is_out_of_memory(error) and torch.cuda.is_available():
            torch.cuda.empty_cache()

    @staticmethod
    def _keyed(callbacks: Iterable[Any]) -> list[tuple[str, Observer]]:
        """Observers by class name, numbered where there are several of one class."""
        seen: dict[str, int] = {}
        keyed = []
        for callback in callbacks:
            if isinstance(callback, Observer):
                name = type(callback).__qualname__
                seen[name] = seen.get(name, 0) + 1
                keyed.append((name if seen[name] == 1 else f"{name}#{seen[name]}", callback))
        return keyed


def _require_inputs(observer: Observer, module: Any) -> None:
    devices = module.sample_ranks.count
    if observer.needs_all_inputs and devices > 1:
        raise ConfigError(
            f"{type(observer).__name__} needs all training inputs on one device, but {devices} devices "
            "hold slices of them: leave it out, or set --model.shard members"
        )

    if observer.needs_shared_inputs and module.data_sets.differ:
        raise ConfigError(
            f"{type(observer).__name__} needs samples that all members share, but model.data_seeds gives members data "
            "of their own: leave it out, or train one run for each data.train_seed. (An observer of your own that "
            "evaluates no samples sets needs_shared_inputs = False.)"
        )


def _checked(measured: Mapping[str, Any], like: Tensor, own: frozenset[str]) -> dict[str, Tensor]:
    """The columns as tensors (E,) on the device.

    Raises:
        TypeError, ValueError: they are something else, or have the name of a column of the module.
    """
    if not isinstance(measured, Mapping):
        raise TypeError(f"observe must return columns by name, got {type(measured).__name__}")
    columns: dict[str, Tensor] = {}
    for name, value in measured.items():
        column = torch.as_tensor(value, device=like.device)
        if column.shape != like.shape or column.is_complex():
            raise ValueError(
                f"column {name!r} must hold one real number for each of the {len(like)} members, got shape "
                f"{tuple(column.shape)} of {column.dtype}"
            )
        if name in own:
            raise ValueError(f"column {name!r} is measured by the module itself: choose another name")
        columns[str(name)] = column
    return columns
