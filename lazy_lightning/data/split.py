"""One drawn set of samples, and the kinds of task."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lazy_lightning.objective.losses import Task as Task  # what the targets are; the losses define which they fit


class Split(NamedTuple):
    """A train, test or kernel set, float64 on the CPU.

    Attributes:
        x: inputs, ``(n, *input_shape)``, float64.
        y: targets. Binary: ``(n,)`` float64 in {-1, +1}. Multi-class: ``(n,)`` int64 in 0..c-1.
            Regression: ``(n,)`` or ``(n, c)`` float64.
        index: ``(n,)`` int64, where each sample stands in its source, so that a split can be recorded.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use for tensors
