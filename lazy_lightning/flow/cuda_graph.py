"""A tried step as a CUDA graph: recorded once, then replayed by one launch instead of some hundreds."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import torch

from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.step import Tried

_Result = TypeVar("_Result")

_WARM_UP = 3
"""Eager steps before recording, in which libraries make their handles and workspaces and caches are filled."""


class RecordingError(RuntimeError):
    """A step that cannot be recorded: it synchronises with the host, or there is no memory for a second workspace."""


class RecordedStep(Generic[_Result]):
    """A step on tensors that stay where they are, which a CUDA graph repeats.

    The step must read and write the same memory each time, make no host synchronisation, and take no decision on the
    host. Its first calls run eagerly, on a stream of their own as recording requires; each call is one step.

    Args:
        step: changes its tensors in place and returns a tensor, or what holds tensors.
    """

    def __init__(self, step: Callable[[], _Result]) -> None:
        self._step = step
        self._eager_calls = 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: _Result | None = None

    def __call__(self) -> _Result:
        """One step; the tensors returned are overwritten by the next one.

        Raises:
            RecordingError: if the step cannot be recorded. Nothing has been changed then.
        """
        if self._graph is None:
            if self._eager_calls < _WARM_UP:
                return self._eager()
            self._record()
        assert self._graph is not None  # just recorded
        assert self._result is not None
        self._graph.replay()
        return self._result

    def _eager(self) -> _Result:
        self._eager_calls += 1
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            result = self._step()
        present.wait_stream(self._stream)
        return result

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._result = self._step()
        except RuntimeError as error:
            raise RecordingError(" ".join(str(error).split())[:200]) from error
        self._graph = graph


class Recording(NamedTuple):
    """A recorded step with the state that it changes."""

    key: Hashable
    """What the recording depends on: another key needs another one."""
    state: FlowState
    step: Callable[[], Tried]
    kept: object
    """What the recorded kernels read, and whose memory must therefore not be given back."""
