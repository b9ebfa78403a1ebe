"""The forward and the backward pass over all samples as CUDA graphs, each replayed by one launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Outputs = Callable[[Tensor], Tensor]
"""Maps weights (E, N) to outputs F (E, n, ...), with a graph of autograd."""

EAGER_CALLS = 8
"""Passes that are made eagerly before recording, which costs as much as some five passes: few members that end soon
are not worth it."""


def _graphed(outputs: Outputs, weights: Tensor) -> Outputs:
    """The same function as two graphs on memory of their own."""
    sample = weights.detach().clone().requires_grad_(True)
    recorded: Outputs = torch.cuda.make_graphed_callables(outputs, (sample,))
    return recorded


class RecordedPass:
    """F as a function of the weights, which is recorded after some calls, for integrators that decide on the host.

    Unlike a recorded step (:class:`~lazy_lightning.flow.cuda_graph.RecordedStep`) it leaves everything but the network
    eager. It is evaluated eagerly while a step is being recorded, which then contains it. The activations are those
    of the last forward pass: a backward pass must precede the next call, and its gradient is overwritten by the next
    backward pass.

    Args:
        outputs: F of weights (E, N), the same function at each call, of weights of one shape.
        record: makes of a function and weights the one that is replayed.
    """

    def __init__(self, outputs: Outputs, record: Callable[[Outputs, Tensor], Outputs] = _graphed) -> None:
        self._eager, self._record = outputs, record
        self._calls = 0
        self._replayed: Outputs | None = None

    def __call__(self, weights: Tensor) -> Tensor:
        """F (E, n, ...) at the weights (E, N), in memory that later calls leave as it is."""
        if weights.is_cuda and torch.cuda.is_current_stream_capturing():
            return self._eager(weights)
        if self._replayed is None and not self._recorded_now(weights):
            return self._eager(weights)
        assert self._replayed is not None  # just recorded
        return self._replayed(weights).clone()

    def _recorded_now(self, weights: Tensor) -> bool:
        """Counts a call, and records when it is time; False where the call is to be eager."""
        self._calls += 1
        if self._calls <= EAGER_CALLS:
            return False
        try:
            with torch.enable_grad():
                self._replayed = self._record(self._eager, weights)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the network's passes are not recorded as CUDA graphs but made eagerly: {text}", stacklevel=2
            )
            self._replayed = self._eager
        return True
