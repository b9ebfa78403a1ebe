"""The kernels of finite networks against those of another implementation, neural-tangents, at the same weights."""

import json
from pathlib import Path

import pytest
import torch
from closeness import assert_close
from ntk_cases import Lambda
from torch import nn

from lazy_lightning.nn import FC
from lazy_lightning.ntk import NTKOperator, empirical_ntk

VALUES = json.loads(Path(__file__).with_name("neural_tangents_empirical.json").read_text())


def fully_connected():
    return FC(4, 2, "erf", bias=0.3, last_bias=0.1, input_shape=3, num_outputs=2)


def convolutional():
    return Lambda(
        lambda m, x: m.head(m.second(m.first(x).erf()).erf().permute(0, 2, 3, 1).flatten(1)),
        first=nn.Conv2d(2, 3, 3, padding=1),
        second=nn.Conv2d(3, 2, 2, stride=2),
        head=nn.Linear(8, 2),
    )


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture(scope="module", params=[fully_connected, convolutional])
def pair(request):
    """Our network with their weights, and what they found."""
    expected = VALUES[request.param.__name__.replace("_", " ")]
    net = request.param().double()
    for p, values in zip(net.parameters(), expected["weights"], strict=True):
        p.data.copy_(tensor(values))
    return net, {name: tensor(values) for name, values in expected.items() if name != "weights"}


def test_same_outputs(pair):
    net, expected = pair
    assert_close(net(expected["x1"]), expected["outputs"])


@pytest.mark.parametrize("method", ["structured", "jacobian", "jvp"])
def test_same_kernel(pair, method):
    net, expected = pair
    found = empirical_ntk(net, None, expected["x1"], expected["x2"], method=method)
    assert_close(found, expected["kernel"], rtol=1e-13)


def test_same_products(pair):
    net, expected = pair
    operator = NTKOperator(net, None, expected["x1"], expected["x2"])
    dense = expected["kernel"].transpose(1, 2).reshape(operator.shape)
    assert_close(operator @ torch.eye(operator.shape[1]), dense, rtol=1e-13)
