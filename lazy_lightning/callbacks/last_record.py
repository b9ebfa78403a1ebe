"""LastRecord, the base class of sinks that write at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytorch_lightning import Trainer

from lazy_lightning.callbacks.curves import Curves
from lazy_lightning.modules.observation import Record, Sink

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class LastRecord(Sink):
    """Sink that keeps the last record."""

    def __init__(self) -> None:
        self._last: Record | None = None

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Keeps the record as the last one."""
        self._last = record

    def last(self, trainer: Trainer) -> Record | None:
        """Returns the last record; for a run resumed after its end, that of the restored curves."""
        if self._last is None:
            self._last = next((c.records[-1] for c in trainer.callbacks if isinstance(c, Curves) and c.records), None)  # type: ignore[attr-defined]
        return self._last
