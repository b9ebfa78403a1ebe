"""Blocks of members: how many are evaluated at once on a CPU, so that what they compute stays in its cache."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lazy_lightning.memory import bytes_saved_for_backward
from lazy_lightning.nn.member_samples import MemberSamples, Samples, select_members
from lazy_lightning.nn.members import MemberNetwork

BLOCK_BYTES = 24 * 2**20
"""What the members of a block may save for the backward pass. Measured on fully connected networks of h = 30 to 300:
the best blocks save 20 to 36 MB (docs/performance.md). It is a constant, and not the size of this machine's cache, so
that the last digits of a member are the same on all machines."""


def block_size(
    network: MemberNetwork, w: Tensor, x: Samples, buffers: dict[str, Tensor], chunk_size: int | None = None
) -> int | None:
    """The members that are evaluated at once: as many as save :data:`BLOCK_BYTES` for the backward pass.

    Even, because products of one matrix are rounded otherwise than those of several, and two members or four begin
    where the memory is aligned. What one member saves is counted in a forward pass.

    Args:
        network: of all members.
        w: (E, N) their weights.
        x: (n, *input_shape), or ``MemberSamples``.
        buffers: (E, *shape) each.
        chunk_size: the samples that are evaluated at once; None for all.

    Returns:
        A number of members; None for all, which is so on other devices than CPUs, and for less than four members.
    """
    if w.device.type != "cpu" or len(w) < 4:
        return None
    first = slice(0, 1)
    with torch.inference_mode(False), torch.enable_grad():  # a trainer's evaluation, in which nothing would be saved
        samples = _savable(select_members(cast(Tensor, x), first)[:chunk_size])
        own = {name: buffer[first] for name, buffer in buffers.items()}
        leaf = w.detach()[first].clone().requires_grad_()
        shared = () if isinstance(samples, MemberSamples) else (samples,)
        saved = bytes_saved_for_backward(lambda: network(leaf, samples, own), shared)
    return members_in(BLOCK_BYTES, saved)


def _savable(samples: Samples) -> Samples:
    """Returns the samples; a copy of those that were made in inference mode, which autograd refuses to save."""
    if isinstance(samples, MemberSamples):
        return MemberSamples(_outside_inference(samples.sets), _outside_inference(samples.own))
    return _outside_inference(samples)


def _outside_inference(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def members_in(available: int, bytes_of_member: int) -> int:
    """The largest even number of members that fit, at least two.

    >>> members_in(100, 17), members_in(100, 90)
    (4, 2)
    """
    return max(2, available // max(bytes_of_member, 1) // 2 * 2)


def outputs_in_blocks(
    network: MemberNetwork, w: Tensor, x: Samples, buffers: dict[str, Tensor], size: int | None
) -> Tensor:
    """f(w, x), (E, n, c), of a block of members at a time; it can be differentiated like that of all members at once.

    Args:
        network: of all members.
        w: (E, N) their weights.
        x: (n, *input_shape), or ``MemberSamples``.
        buffers: (E, *shape) each.
        size: the members of a block; None for all.
    """
    rows = blocks(len(w), size)
    if len(rows) == 1:
        return network(w, x, buffers)
    return torch.cat(
        [
            network(
                w[part], select_members(cast(Tensor, x), part), {name: buffer[part] for name, buffer in buffers.items()}
            )
            for part in rows
        ]
    )


def blocks(members: int, size: int | None) -> list[slice]:
    """Slices that cover the members; a last one of one member is joined to that before it.

    >>> blocks(7, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    >>> blocks(7, None)
    [slice(0, 7, None)]
    """
    starts = list(range(0, members, size or max(members, 1)))
    if len(starts) > 1 and members - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], members], strict=True)]
