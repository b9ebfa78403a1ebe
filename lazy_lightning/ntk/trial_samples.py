"""Samples on which the structure of a network is tried: such that a difference shows, whatever the data begin with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_on

ATTEMPTS = 3
"""How often other inputs are tried for layers whose gradient was zero at the first ones."""
_SCALES = (1.0, 3.0, 0.3)
_RANDOM, _LOOKED_AT = 2, 4096


def trial_samples(model: TangentModel, x: Tensor, attempt: int = 0) -> Tensor:
    """Two random samples and up to two from the data that are not zero, (n, *shape) with n <= 4.

    Random numbers have the scale of the data. Where the network cannot be evaluated at such, or gives no finite
    outputs (indices, logarithms), each entry is drawn from the data's values at its place. The draws are the same at
    every call; another ``attempt`` gives others.

    Args:
        model: of one member, at weights none of which is zero.
        x: the data.
        attempt: from 0 to ``ATTEMPTS - 1``.
    """
    x = x[:: max(1, len(x) // _LOOKED_AT)]
    x = x.nan_to_num(0.0, 0.0, 0.0) if x.is_floating_point() else x
    data = x[_telling_rows(x)]
    for few in _candidates(x, data, attempt):
        if _gives_numbers(model, few):
            return few
    return data


def _candidates(x: Tensor, data: Tensor, attempt: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(attempt)
    if x.is_floating_point() or x.is_complex():
        size = data.abs().square().mean().sqrt()
        noise = torch.randn(_RANDOM, *x.shape[1:], dtype=x.dtype, generator=draw).to(x.device)
        drawn = _SCALES[attempt] * noise * torch.where(size > 0, size, 1.0)
        yield torch.cat([drawn, data])
        yield drawn
    rows = torch.randint(len(x), (_RANDOM, *x.shape[1:]), generator=draw).to(x.device)
    yield torch.cat([x.gather(0, rows), data])


def _telling_rows(x: Tensor) -> Tensor:
    """The largest sample and one more that is not zero, if there are."""
    size = x.reshape(len(x), -1).abs().to(torch.float64).sum(dim=1)
    largest = size.argmax()
    others = size.clone()
    others[largest] = 0.0
    middle = (others > 0).to(torch.int64).cumsum(0)
    second = torch.searchsorted(middle, (middle[-1:] + 1) // 2).clamp(max=len(x) - 1)
    return torch.cat([largest.unsqueeze(0), second]) if len(x) > 1 else largest.unsqueeze(0)


def _gives_numbers(model: TangentModel, x: Tensor) -> bool:
    """Whether the network takes these samples and its outputs are finite."""
    try:
        with gradients_on():
            return bool(model.outputs(x).isfinite().all())
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except Exception:  # random inputs may be outside of a network's domain, and its code may raise anything
        return False
