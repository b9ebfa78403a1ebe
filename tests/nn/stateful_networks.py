"""A network whose constructor draws state of any kind besides its weights."""

from __future__ import annotations

import functools
import random

import numpy as np
import torch
from torch import nn

WIDTH = 6


class Stateful(nn.Module):
    """Two layers, with what ``kinds`` name between them."""

    def __init__(self, kinds=(), input_shape=(4,), num_outputs=1):
        super().__init__()
        self.kinds = tuple(kinds)
        self.first = nn.Linear(input_shape[0], WIDTH)
        self.last = nn.Linear(WIDTH, num_outputs)
        for kind in self.kinds:
            DRAWS[kind](self)

    def forward(self, x):
        z = torch.tanh(self.first(x))
        for kind in self.kinds:
            z = USES[kind](self, z)
        return self.last(z)


def _attribute(name, draw):
    return lambda net: setattr(net, name, draw())


def _buffer(name, draw, **options):
    return lambda net: net.register_buffer(name, draw(), **options)


def _freeze(layer):
    return lambda net: getattr(net, layer).requires_grad_(False)


def _complex():
    return torch.randn(WIDTH, dtype=torch.complex128)


DRAWS = {
    "mask buffer": _buffer("mask", lambda: torch.rand(WIDTH) > 0.5),
    "permutation buffer": _buffer("order", lambda: torch.randperm(WIDTH)),
    "buffer that is not saved": _buffer("unsaved", lambda: torch.randperm(WIDTH), persistent=False),
    "float buffer": _buffer("scale", lambda: torch.randn(WIDTH)),
    "mask of NumPy": _buffer("of_numpy", lambda: torch.from_numpy(np.random.rand(WIDTH) > 0.5)),  # noqa: NPY002
    "mask of Python": _buffer("of_python", lambda: torch.tensor([random.random() > 0.5 for _ in range(WIDTH)])),
    "plain tensor": _attribute("plain", lambda: torch.randn(WIDTH)),
    "plain mask": _attribute("plain_mask", lambda: torch.rand(WIDTH) > 0.5),
    "complex buffer": _buffer("phase", _complex),
    "frozen first layer": _freeze("first"),
    "frozen head": _freeze("last"),
    "frozen complex parameter": _attribute("held", lambda: nn.Parameter(_complex(), requires_grad=False)),
    "constant": _buffer("constant", lambda: torch.arange(WIDTH)),
    # What cannot be carried:
    "number": _attribute("number", random.random),
    "number of torch": _attribute("item", lambda: torch.rand(()).item()),
    "array": _attribute("array", lambda: np.random.rand(WIDTH)),  # noqa: NPY002
    "list of tensors": _attribute("listed", lambda: [torch.randn(WIDTH)]),
    "closure": _attribute("function", lambda: functools.partial(torch.mul, random.random())),
    "hidden layer": _attribute("hidden", lambda: [nn.Linear(WIDTH, WIDTH)]),
    "complex parameter": _attribute("spectrum", lambda: nn.Parameter(_complex())),
}
USES = {
    "mask buffer": lambda net, z: torch.where(net.mask, z, 0.1 * z),
    "permutation buffer": lambda net, z: z[:, net.order],
    "buffer that is not saved": lambda net, z: z[:, net.unsaved],
    "float buffer": lambda net, z: z * net.scale,
    "mask of NumPy": lambda net, z: torch.where(net.of_numpy, z, -z),
    "mask of Python": lambda net, z: torch.where(net.of_python, z, 2 * z),
    "plain tensor": lambda net, z: z + net.plain,
    "plain mask": lambda net, z: torch.where(net.plain_mask, z, z.square()),
    "complex buffer": lambda net, z: (z * net.phase).real,
    "frozen first layer": lambda net, z: z,
    "frozen head": lambda net, z: z,
    "frozen complex parameter": lambda net, z: (z * net.held).imag,
    "constant": lambda net, z: z * net.constant,
    "number": lambda net, z: z * net.number,
    "number of torch": lambda net, z: z * net.item,
    "array": lambda net, z: z * torch.from_numpy(net.array).to(z),
    "list of tensors": lambda net, z: z * net.listed[0],
    "closure": lambda net, z: net.function(z),
    "hidden layer": lambda net, z: net.hidden[0](z),
    "complex parameter": lambda net, z: (z * net.spectrum).real,
}
REFUSED = {
    "number": "number",
    "number of torch": "item",
    "array": "array",
    "list of tensors": "listed",
    "closure": "function",
    "hidden layer": "hidden",
    "complex parameter": "spectrum",
}
CARRIED = sorted(set(DRAWS) - set(REFUSED))
