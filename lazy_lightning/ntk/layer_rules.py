"""How a layer's input and the gradient at its output make the factors of its Jacobian: one rule a kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazy_lightning.nn.convolution import NTKConv2d
from lazy_lightning.nn.layers import NTKLinear

Positions = tuple[Tensor, Tensor]
"""a (E or 1, n, G, T, p) with the scale and a column for the bias inside; b (E, n, c, G, T, q)."""

LayerRule = Callable[[Any, Tensor, Tensor], Positions]
"""From the module, its input (E or 1, n, *in) and the gradients (E, n, c, *out) at its output."""

_RULES: dict[type[nn.Module], LayerRule] = {}


def register_rule(kind: type[nn.Module], rule: LayerRule) -> None:
    """Teaches the structured kernel a kind of layer; of this very type, since a subclass may compute something else.

    The result of a rule is compared with autograd before it is used, so a wrong rule costs time, never a wrong kernel.
    """
    _RULES[kind] = rule


def known_rules() -> frozenset[tuple[type[nn.Module], LayerRule]]:
    """All rules, to be compared with later: a plan holds as long as they are the same."""
    return frozenset(_RULES.items())


def rule_for(module: nn.Module) -> LayerRule | None:
    """The rule of a layer, or None if there is none."""
    return _RULES.get(type(module))


def linear_positions(a: Tensor, b: Tensor, *, scale: float, bias: float) -> Positions:
    """z = scale W a + bias b over the last axis; the axes between samples and features are positions."""
    return _with_bias(a.unsqueeze(2).flatten(3, -2) if a.ndim > 3 else a[:, :, None, None], scale, bias), (
        b.unsqueeze(3).flatten(4, -2) if b.ndim > 4 else b[:, :, :, None, None]
    )


def convolution_positions(module: Any, a: Tensor, b: Tensor, *, scale: float, bias: float) -> Positions:
    """A convolution of one or two dimensions as a linear layer over patches, one position a pixel of the output."""
    patches = _patches(module, a)
    a = patches.reshape(*a.shape[:2], module.groups, -1, patches.shape[-1]).mT
    b = b.flatten(4)
    b = b.reshape(*b.shape[:3], module.groups, -1, b.shape[-1]).mT
    return _with_bias(a, scale, bias), b


def _patches(module: Any, a: Tensor) -> Tensor:
    """The inputs under the kernel at each position of the output, (E n, C k, T)."""
    images = a.flatten(0, 1)
    if images.ndim == 3:
        images = images.unsqueeze(2)
    lead = [1] * (2 - len(module.kernel_size))  # a signal is an image of height one
    kernel, dilation, stride = ((*lead, *getattr(module, name)) for name in ("kernel_size", "dilation", "stride"))
    images = _padded(module, images, len(lead))
    return F.unfold(images, kernel, dilation=dilation, stride=stride)


def _padded(module: Any, images: Tensor, lead: int) -> Tensor:
    # The module's own list, last axis first, which holds the two unequal sides of padding="same" as well.
    sides = [*module._reversed_padding_repeated_twice, *[0, 0] * lead]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(images, sides, mode=mode) if any(sides) else images


def _with_bias(a: Tensor, scale: float, bias: float) -> Tensor:
    """The scaled input with the bias as one more feature: its products then hold both."""
    a = a if scale == 1.0 else scale * a
    return torch.cat([a, a.new_full((*a.shape[:-1], 1), bias)], dim=-1) if bias else a


def _linear(module: nn.Linear, a: Tensor, b: Tensor) -> Positions:
    return linear_positions(a, b, scale=1.0, bias=_unit_bias(module))


def _ntk_linear(module: NTKLinear, a: Tensor, b: Tensor) -> Positions:
    return linear_positions(a, b, scale=module.scale, bias=module.bias_scale)


def _convolution(module: nn.Conv1d | nn.Conv2d, a: Tensor, b: Tensor) -> Positions:
    return convolution_positions(module, a, b, scale=1.0, bias=_unit_bias(module))


def _ntk_convolution(module: NTKConv2d, a: Tensor, b: Tensor) -> Positions:
    return convolution_positions(module, a, b, scale=module.scale, bias=module.bias_scale)


def _unit_bias(module: nn.Module) -> float:
    return float(cast("Tensor | None", module.bias) is not None)


register_rule(nn.Linear, _linear)
register_rule(NTKLinear, _ntk_linear)
register_rule(nn.Conv1d, _convolution)
register_rule(nn.Conv2d, _convolution)
register_rule(NTKConv2d, _ntk_convolution)
