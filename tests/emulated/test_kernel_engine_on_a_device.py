"""The tangent kernel on the device by all methods, outputs and tile sizes equals the host's."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from emulated.memory import NAME
from lazy_lightning.nn import CNN, FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import NTKOperator
from lazy_lightning.ntk.empirical import empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal


class Mixed(nn.Module):
    """Layers with structure and one without, and a buffer of each seed's own."""

    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(*input_shape, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, num_outputs))
        self.register_buffer("scale", 1 + torch.rand((), dtype=torch.float64))

    def forward(self, x):
        return self.layers(self.scale * x)


NETWORKS = {
    "FC": (functools.partial(FC, width=5, depth=2), (4,)),
    "CNN": (functools.partial(CNN, width=3, stages=1, layers=1, filter_size=3), (1, 6, 6)),
    "Mixed": (Mixed, (4,)),
}


def setting(name, device):
    """Network, weights (E, N), buffers and samples of a problem."""
    build, shape = NETWORKS[name]
    members = InitialMembers(build, [0, 1], shape, 2)
    members.network.template.to(device)
    draw = torch.Generator().manual_seed(0)
    x, others = (torch.randn(n, *shape, dtype=torch.float64, generator=draw).to(device) for n in (5, 3))
    buffers = {key: b.to(device) for key, b in members.buffers.items()}
    return members.network, members.w0.to(device), x, others, buffers


def both(name, compute):
    """What a computation gives on the host, and on the device (brought to the host)."""
    host, device = compute(*setting(name, "cpu")), compute(*setting(name, NAME))
    pairs = zip(host.values(), device.values(), strict=True) if isinstance(host, dict) else [(host, device)]
    for expected, found in pairs:
        assert found.device.type == NAME
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("output", "tile"), [("full", 2), ("trace", None), ("diagonal", 2)])
@pytest.mark.parametrize("method", ["auto", "jacobian", "jvp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel(name, method, output, tile):
    def compute(network, w, x, others, buffers):
        options = {"method": method, "output": output, "tile": tile, "buffers": buffers}
        square = empirical_ntk(network, w, x, **options)
        return {"square": square, "others": empirical_ntk(network, w, x, others, **options)}

    both(name, compute)


@pytest.mark.parametrize("name", NETWORKS)
def test_by_layer_and_diagonal(name):
    both(name, lambda network, w, x, others, b: empirical_ntk_by_layer(network, w, x, others, buffers=b, tile=2))
    both(name, lambda network, w, x, others, b: empirical_ntk_diagonal(network, w, x, buffers=b))


def test_structured():
    both("FC", lambda network, w, x, others, b: empirical_ntk(network, w, x, method="structured", tile=2))


def test_written_to_an_array_of_the_host():
    network, w, x, _, _ = setting("FC", NAME)
    out = np.zeros((2, 5, 5))
    empirical_ntk(network, w, x, output="trace", tile=2, out=out)
    host = empirical_ntk(*setting("FC", "cpu")[:3], output="trace").numpy()
    np.testing.assert_allclose(out, host, rtol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_operator(name):
    def compute(network, w, x, others, buffers):
        operator = NTKOperator(network, w, x, buffers=buffers)
        vectors = torch.linspace(-1, 1, w.shape[0] * operator.shape[1] * 3, dtype=w.dtype).to(w.device)
        return operator @ vectors.view(w.shape[0], operator.shape[1], 3)

    both(name, compute)
