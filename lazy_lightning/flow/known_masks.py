"""Masks over members that are known on the host, where reading them costs nothing: on a CPU.

So steps on a CPU leave out what would change no member. On other devices nothing is read, and everything is computed.
"""

from __future__ import annotations

from torch import Tensor


def holds_for_all(mask: Tensor) -> bool:
    """Whether a mask (E,) is known to hold for all members; False on devices other than the CPU.

    Numbers (E,) may stand for the mask of those that are not zero, which saves the comparison; NaN is not zero.

    >>> import torch
    >>> holds_for_all(torch.tensor([True, True])), holds_for_all(torch.tensor([True, False]))
    (True, False)
    """
    return mask.is_cpu and all(mask.tolist())


def holds_for_none(mask: Tensor) -> bool:
    """Whether a mask (E,) is known to hold for no member; False on devices other than the CPU."""
    return mask.is_cpu and not any(mask.tolist())
