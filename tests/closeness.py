"""One comparison for all tests, with its tolerances by dtype in one table."""

from __future__ import annotations

import torch
from torch import Tensor

# Some tens of roundings: what a few chained sums and products of tens of terms leave.
ROUNDING = {torch.float64: 1e-14, torch.float32: 5e-6}


def assert_close(actual: object, expected: object, *, rtol: float | None = None, scale: float | None = None) -> None:
    """Compares within ``rtol`` of the largest number expected, since single entries may cancel.

    Args:
        actual: a tensor, or what makes one.
        expected: likewise; of the same shape and dtype.
        rtol: relative tolerance; None takes the rounding of the dtype. 0 asks for the same bits.
        scale: the size to which the error is relative, if it is not that of ``expected``.
    """
    a, b = torch.as_tensor(actual).detach(), torch.as_tensor(expected).detach()
    rtol = ROUNDING[b.dtype] if rtol is None else rtol
    size = float(_largest(b)) if scale is None else scale
    torch.testing.assert_close(a, b, rtol=0.0, atol=rtol * size, equal_nan=True)


def _largest(x: Tensor) -> Tensor:
    finite = x[x.isfinite()] if x.is_floating_point() else x
    return finite.abs().max() if finite.numel() else torch.zeros(())
