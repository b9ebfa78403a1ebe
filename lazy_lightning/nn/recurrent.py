"""Recurrent layers without cuDNN, whose fused kernels torch.func cannot differentiate twice or map over members."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def has_recurrent_layers(template: nn.Module) -> bool:
    """Whether a module contains a layer of torch that cuDNN evaluates as a whole: RNN, GRU, LSTM."""
    return any(isinstance(module, nn.RNNBase) for module in template.modules())


@contextmanager
def without_cudnn(disable: bool) -> Iterator[None]:
    """Evaluates recurrent layers by torch's own kernels if ``disable``; convolutions lose cuDNN meanwhile too.

    On CUDA such a layer copies its weights into one contiguous buffer for cuDNN, by their addresses. Weights inside of
    ``vmap`` or a derivative have none, and views of the matrix of all members' weights would be overwritten.
    """
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = before and not disable
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
