"""The change of the outputs of each bundled network in float32 pairs, against float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import CNN, FC, VGG, InitialMembers, ResNet18, Symmetrized, TwoLayer, WideResNet
from lazy_lightning.nn.activations import ACTIVATIONS
from lazy_lightning.nn.paired_network import PairedNetwork

FLAT, IMAGES = (6,), (2, 8, 8)
NETWORKS = {
    **{f"fc {name}": (partial(FC, width=8, depth=2, activation=name, bias=0.5), FLAT) for name in ACTIVATIONS},
    "linear model": (partial(FC, depth=0, last_bias=1.0), FLAT),
    "two layers": (partial(TwoLayer, width=8), FLAT),
    "symmetrized": (partial(Symmetrized, partial(FC, width=6, depth=1)), FLAT),
    "cnn": (partial(CNN, width=3, filter_size=3, bias=0.5), IMAGES),
    "standard cnn": (partial(CNN, width=3, filter_size=3, parametrisation="standard", activation="relu"), IMAGES),
    "vgg": (partial(VGG, widening=1 / 32), IMAGES),
    "resnet": (partial(ResNet18, widening=1 / 32), IMAGES),
    "wide resnet": (partial(WideResNet, depth=10, widening=0.25, stem=4), IMAGES),
}


def members_of(name: str, seed: int = 0):
    build, shape = NETWORKS[name]
    torch.manual_seed(seed)
    made = InitialMembers(build, [seed, seed + 1], shape, 2, torch.randn(2, *shape, dtype=torch.float64))
    w0 = made.w0.float()
    return made.network, w0, torch.randn(5, *shape), torch.randn_like(w0), torch.randn(2, 5, 2)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(NETWORKS)), st.floats(-10, 0.3), st.integers(0, 50))
def test_change_and_gradient_in_float32_equal_float64(name, exponent, seed):
    network, w0, x, direction, u = members_of(name, seed)
    dw = (10**exponent * direction).requires_grad_()
    change = PairedNetwork(network.in_precision(torch.float32))(w0, dw, x, {})
    (change * u).sum().backward()

    wide = network.in_precision(torch.float64)
    w = dw.detach().double().requires_grad_()
    outputs = wide(w0.double() + w, x.double())
    (outputs * u).sum().backward()
    by_subtraction = outputs.detach() - wide(w0.double(), x.double())
    rounding = 1e-15 * float(outputs.detach().norm() / by_subtraction.norm())  # of the subtraction in float64
    assert relative(change.detach(), by_subtraction) < 1e-5 + 30 * rounding
    assert relative(dw.grad, w.grad) < 1e-5


@pytest.mark.parametrize("name", ["fc softplus", "cnn"])
def test_kept_values_give_the_same_numbers_and_members_do_not_depend_on_company(name):
    network, w0, x, direction, _ = members_of(name)
    paired, dw = PairedNetwork(network.in_precision(torch.float32)), 1e-6 * direction
    kept = paired.bases(w0, x, {})
    together = paired(w0, dw, x, {}, kept)
    assert torch.equal(together, paired(w0, dw, x, {}))
    alone = paired(w0[1:], dw[1:], x, {}, tuple(tensor[1:] for tensor in kept))
    torch.testing.assert_close(alone, together[1:], rtol=1e-6, atol=1e-13)


def test_network_with_an_operation_without_a_rule_is_refused_by_name():
    build = lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2))  # noqa: E731
    made = InitialMembers(build, [0], FLAT, 2, torch.randn(2, *FLAT, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"no rule for torch's layer_norm"):
        PairedNetwork(made.network)(made.w0, made.w0, torch.randn(3, *FLAT, dtype=torch.float64), {})
