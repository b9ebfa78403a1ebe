"""The change of a product of two factors that both change, by two products forward and two backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Sides = tuple[int, int]
"""A number for the height and one for the width."""


class ProductChange(torch.autograd.Function):
    """(A + dA)(B + dB) - A B = A dB + dA (B + dB), with the gradients of (A + dA)(B + dB) by dA and dB."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, dA: Tensor, B: Tensor, dB: Tensor) -> Tensor:
        """(E, i, k), of factors (E, i, j) and (E, j, k)."""
        present = B + dB
        ctx.save_for_backward(A, dA, present)
        return torch.baddbmm(torch.bmm(A, dB), dA, present)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, Tensor]:
        """The gradients by dA and dB."""
        A, dA, present = ctx.saved_tensors
        return None, torch.bmm(gradient, present.mT), None, torch.bmm((A + dA).mT, gradient)


class ConvolutionChange(torch.autograd.Function):
    """As :class:`ProductChange`, of images (n, C, H, W) and filters (channels, C, k, k)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, dx: Tensor, W: Tensor, dW: Tensor, stride: Sides, padding: Sides, dilation: Sides, groups: int
    ) -> Tensor:
        """(n, channels, H', W')."""
        options = (stride, padding, dilation, groups)
        return F.conv2d(dx, W, None, *options) + F.conv2d(x + dx, dW, None, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps the factors and the options."""
        ctx.save_for_backward(*inputs[:4])
        ctx.options = inputs[4:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients by dx and dW."""
        x, dx, W, dW = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        by_x, by_W, _ = torch.ops.aten.convolution_backward(
            gradient, x + dx, W + dW, None, stride, padding, dilation, False, (0, 0), groups, (True, True, False)
        )
        return None, by_x, None, by_W, None, None, None, None
