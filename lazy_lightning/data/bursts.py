"""The train loader of full-batch flow: it counts bursts and carries no data."""

from __future__ import annotations

from collections.abc import Iterator


class BurstLoader:
    """Endless iterable of burst numbers 0, 1, 2, ..., resumable through its state.

    In full-batch flow the data lie on the device for the whole run; Lightning only needs something to
    iterate, one item per burst of flow steps. There is no ``__len__``: how long a run lasts is decided by
    the flow's events, or by the Trainer's ``max_steps``.

    >>> loader = BurstLoader()
    >>> bursts = iter(loader)
    >>> next(bursts), next(bursts)
    (0, 1)
    >>> resumed = BurstLoader()
    >>> resumed.load_state_dict(loader.state_dict())
    >>> next(iter(resumed))
    2
    """

    def __init__(self) -> None:
        self._next_burst = 0
        self._begun: int | None = None

    def __iter__(self) -> Iterator[int]:
        while True:
            burst = self._next_burst
            self._next_burst = burst + 1
            yield burst

    def began(self, burst: int) -> None:
        """Note that ``burst`` is really under way, and not only fetched.

        A Trainer fetches one item ahead of loaders without a length. Without this call a checkpoint would
        count that item as done, and a resumed run would skip a burst.
        """
        self._begun = burst

    def state_dict(self) -> dict[str, int]:
        """The number of the first burst that has not begun (or, if never told, not been handed out)."""
        return {"next_burst": self._next_burst if self._begun is None else self._begun + 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting from ``state["next_burst"]``."""
        self._next_burst = state["next_burst"]
        self._begun = None
