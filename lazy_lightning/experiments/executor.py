"""Interface of an executor of a sweep, which trains batches here or on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from lazy_lightning.experiments.worker_pool import BatchResult, ProgressMessage, Task


class Executor(Protocol):
    """Trains batches, each in its own run folder.

    A batch is complete when its folder is, so an executor has no state to keep: the sweep submits a batch whose result
    is missing again, to this or another executor.
    """

    queues: ClassVar[bool]
    """Whether a submitted batch may wait in a queue; its first progress message then reports that it has begun."""

    @property
    def capacity(self) -> int:
        """Number of batches that may be submitted at a time."""
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submits batches.

        Raises:
            RunError: the batches are refused.
        """
        ...

    def results(self, timeout: float) -> list[tuple[str, BatchResult]]:
        """Returns the keys and results of the batches that have ended since the last call.

        Args:
            timeout: seconds to wait for a result.
        """
        ...

    def messages(self) -> list[ProgressMessage]:
        """Returns the progress messages received since the last call."""
        ...

    def stop(self) -> None:
        """Stops all batches after their present bursts."""
        ...

    def close(self, at_once: bool = False) -> None:
        """Ends all batches, immediately or after their present bursts."""
        ...
