"""What sinks that speak at the end of a run have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytorch_lightning import Trainer

from lazy_lightning.callbacks.curves import Curves
from lazy_lightning.modules.observation import Record, Sink

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class LastRecord(Sink):
    """Remembers the last observation."""

    def __init__(self) -> None:
        self._last: Record | None = None

    def record(self, trainer: Trainer, module: ObservableModule, record: Record) -> None:
        """Remembers it."""
        self._last = record

    def last(self, trainer: Trainer) -> Record | None:
        """The last observation; of a resumed run that had ended already, it is in the curves."""
        if self._last is None:
            self._last = next((c.records[-1] for c in trainer.callbacks if isinstance(c, Curves) and c.records), None)  # type: ignore[attr-defined]
        return self._last
