"""Any module over the member axis, against a loop over its members."""

import functools

import pytest
import torch
from closeness import assert_close
from torch import nn
from torch.func import functional_call

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.construction import accepted_arguments
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.members import MemberNetwork


class Scaled(nn.Module):
    """A linear layer whose float buffer is drawn, so that it differs by member, and one of integers that does not."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 2)
        self.register_buffer("scale", torch.randn(6))
        self.register_buffer("order", torch.arange(6).flip(0))

    def forward(self, x):
        return self.inner(x[:, self.order] * self.scale)


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3)
    )


CASES = {
    "torch layers": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), (6,)),
    "convolutions": (convolutions, (2, 3, 3)),
    "buffers": (Scaled, (6,)),
    "one output without its axis": (lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), (6,)),
    "FC": (functools.partial(FC, width=5, depth=2, bias=0.3), (6,)),
    "a bare layer": (functools.partial(nn.Linear, 6, 2), (6,)),
}


@pytest.fixture(params=CASES)
def case(request):
    factory, shape = CASES[request.param]
    members = InitialMembers(factory, [0, 1, 4], shape, 1)
    x = torch.randn(7, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return members, x


def loop(members, x):
    """One member after the other."""
    w = members.network.unpack(members.w0)
    outputs = [
        functional_call(
            members.network.template,
            {**{n: p[e] for n, p in w.items()}, **{n: b[e] for n, b in members.buffers.items()}},
            x,
        )
        for e in range(len(members.w0))
    ]
    return torch.stack(outputs).view(len(members.w0), len(x), -1)


def test_equals_a_loop_over_members(case):
    members, x = case
    assert_close(members.network(members.w0, x, members.buffers), loop(members, x))


def test_gradient_equals_that_of_the_loop(case):
    members, x = case
    w0 = members.w0
    by_rows = []
    for outputs in (lambda: members.network(members.w0, x, members.buffers), lambda: loop(members, x)):
        members.w0 = w0.clone().requires_grad_(True)
        outputs().pow(2).sum().backward()
        by_rows.append(members.w0.grad)
    assert_close(*by_rows)


def test_buffers_differ_by_member():
    members = InitialMembers(Scaled, [0, 1], (6,), 2)
    assert set(members.buffers) == {"scale"}
    assert not torch.equal(members.buffers["scale"][0], members.buffers["scale"][1])
    x = torch.ones(3, 6, dtype=torch.float64)
    swapped = members.network(members.w0, x, {"scale": members.buffers["scale"].flip(0)})
    assert not torch.allclose(swapped, members.network(members.w0, x, members.buffers))


def test_weights_unpack_and_layers(case):
    members, _ = case
    network, w = members.network, members.w0
    parts = network.unpack(w)
    assert_close(torch.cat([p.flatten(1) for p in parts.values()], dim=1), w, rtol=0.0)
    slices = network.layer_slices()
    assert [s.start for s in slices.values()] == [0, *[s.stop for s in slices.values()][:-1]]
    assert list(slices.values())[-1].stop == network.weights == w.shape[1]
    for layer, part in slices.items():
        own = [p.flatten(1) for name, p in parts.items() if name.rpartition(".")[0] == layer]
        assert torch.equal(w[:, part], torch.cat(own, dim=1))


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_preactivations_by_hook_equal_those_of_fc(bias):
    members = InitialMembers(functools.partial(FC, width=5, depth=3, bias=bias), [0, 1], (6,), 2)
    x = torch.randn(4, 6, dtype=torch.float64)
    by_hook = members.network.preactivations(members.w0, x)
    direct = members.network.template.preactivations_members(members.network.unpack(members.w0), x)
    assert list(by_hook) == ["hidden.0", "hidden.1", "hidden.2", "head"]
    for layer, z in enumerate(direct):
        assert_close(by_hook[f"hidden.{layer}"], z)
    assert_close(by_hook["head"], members.network(members.w0, x))


def test_hooks_are_removed(case):
    members, x = case
    members.network.preactivations(members.w0, x, members.buffers)
    assert not any(m._forward_hooks for m in members.network.template.modules())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), r"layer '1' \(BatchNorm1d\).*use GroupNorm"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.1)), r"layer '1' \(Dropout\).*random"),
        (nn.Tanh, "Tanh has no parameters"),
    ],
)
def test_refused(factory, message):
    with pytest.raises(ConfigError, match=message):
        InitialMembers(factory, [0], (6,), 1)


def test_dropout_of_nothing_is_let_pass():
    MemberNetwork(nn.Sequential(nn.Linear(6, 1), nn.Dropout(0.0)))


@pytest.mark.parametrize("shape", [(3,), (5, 2, 2), ()])
def test_wrong_output_shape(shape):
    class Wrong(nn.Linear):
        def forward(self, x):
            return super().forward(x).sum() * torch.ones(shape, dtype=x.dtype)

    with pytest.raises(ConfigError, match="Wrong must map"):
        InitialMembers(lambda: Wrong(6, 1), [0], (6,), 1)
    network = MemberNetwork(Wrong(6, 1))
    with pytest.raises(ConfigError, match="Wrong must map"):
        network(torch.zeros(2, 7), torch.ones(5, 6))


def test_shapes_are_given_to_factories_that_take_them():
    def build(input_shape, num_outputs):
        return nn.Linear(*input_shape, num_outputs)

    assert InitialMembers(build, [0], (6,), 3).w0.shape == (1, 21)
    assert accepted_arguments(build) == {"input_shape", "num_outputs"}


def test_a_layer_under_two_names_leaves_the_template_as_it_is():
    """torch's own tying of weights would leave a mapped tensor in it."""
    layer = nn.Linear(3, 3)
    template = nn.Sequential(layer, nn.Tanh(), layer)
    network = MemberNetwork(template)
    before = layer.weight.detach().clone()
    w = torch.randn(2, network.weights)
    expected = torch.stack([layer_twice(row, torch.ones(4, 3)) for row in w])
    torch.testing.assert_close(network(w, torch.ones(4, 3)), expected)
    assert torch.equal(template[0].weight, before)
    assert torch.equal(template[2].weight, before)


def layer_twice(row: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    weight, bias = row[:9].view(3, 3), row[9:]
    return torch.tanh(x @ weight.T + bias) @ weight.T + bias
