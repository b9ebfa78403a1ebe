"""Convolutional networks: written out by hand, their variance at the start, their kernels, their members."""

from __future__ import annotations

import functools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_close
from image_networks import BUILDS, SHAPE, built, images
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import CNN, FC, VGG, InitialMembers, MemberNetwork, NTKConv2d, ResNet18, Symmetrized, WideResNet
from lazy_lightning.nn.activations import activation

EVERY = pytest.mark.parametrize("name", BUILDS)


# ---------------------------------------------------------------------- written out


def softplus(z: Tensor) -> Tensor:
    return activation("softplus(5)").scale * F.softplus(z, 5.0, 40.0)


def test_cnn_by_hand():
    net = built(functools.partial(CNN, width=3, stages=2, layers=2, filter_size=3, padding=1), bias=0.5, num_outputs=2)
    weights, biases = ([p for n, p in net.named_parameters() if n.endswith(kind)] for kind in ("weight", "bias"))
    x = a = images()
    for w, b, stride in zip(weights, biases, (2, 1, 2, 1, None), strict=True):
        if stride is not None:
            a = softplus(F.conv2d(a, w / math.sqrt(w[0].numel()), 0.5 * b, stride, 1))
    expected = a.mean((2, 3)) @ weights[-1].T / math.sqrt(3) + 0.5 * biases[-1]
    assert a.shape[2:] == (2, 2)
    assert_close(net(x), expected)


def test_wide_resnet_by_hand():
    net = built(functools.partial(WideResNet, 10, widening=0.25, stem=3, angle=30.0, activation="relu"))
    p = dict(net.named_parameters())
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)

    def conv(a: Tensor, name: str, stride: int = 1) -> Tensor:
        w = p[f"features.{name}.weight"]
        return F.conv2d(a, w / math.sqrt(w[0].numel()), None, stride, w.shape[-1] // 2)

    x = images()
    a = conv(x, "0")
    for block, stride in ((1, 1), (2, 2), (3, 2)):
        phi = math.sqrt(2) * a.relu()
        branch = conv(math.sqrt(2) * conv(phi, f"{block}.conv1").relu(), f"{block}.conv2", stride)
        a = c * conv(a, f"{block}.shortcut", stride) + s * branch
    expected = (math.sqrt(2) * a.relu()).mean((2, 3)) @ p["head.weight"].T / math.sqrt(16)
    assert_close(net(x), expected)


def test_vgg_has_the_usual_layers():
    """Counted in the original: 9.2 million weights of convolutions, and 10 x 512 of the one linear layer."""
    for depth, convolutions in ((11, 8), (13, 10), (16, 13), (19, 16)):
        with torch.device("meta"):
            net = VGG(depth, input_shape=(3, 32, 32), num_outputs=10)
        assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == convolutions
        assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 5
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG(11, input_shape=(3, 32, 32), num_outputs=10).parameters()) == 9217728 + 5120


def test_resnet_has_the_usual_layers():
    """11,159,232 weights in 20 convolutions, of which 3 are shortcuts."""
    with torch.device("meta"):
        net = ResNet18(input_shape=(3, 32, 32), num_outputs=10)
    sizes = [m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert (len(sizes), sum(sizes)) == (20, 11159232)


def test_resnet_by_hand():
    net = built(functools.partial(ResNet18, widening=1 / 21), parametrisation="standard")
    p = dict(net.named_parameters())

    def conv(a: Tensor, name: str, stride: int = 1) -> Tensor:
        w = p[f"features.{name}.weight"]
        return F.conv2d(a, w, None, stride, w.shape[-1] // 2)

    x = images()
    a = conv(x, "0").relu()
    for block in range(8):
        stride, name = (2 if block in (2, 4, 6) else 1), f"{block + 2}"
        branch = conv(conv(a, f"{name}.conv1", stride).relu(), f"{name}.conv2")
        short = conv(a, f"{name}.shortcut", stride) if f"features.{name}.shortcut.weight" in p else a
        a = (branch + short).relu()
    assert_close(net(x), a.mean((2, 3)) @ p["head.weight"].T)


# ---------------------------------------------------------------------- parametrisations


@pytest.mark.parametrize("name", [name for name in BUILDS if not name.startswith("ResNet18")])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_both_parametrisations_are_one_function(name, bias):
    """Standard weights are the NTK's times their scales; the activation's constant sits in the next layer's.

    Not so for ResNet-18, whose shortcuts without weights pass no constant on.
    """
    ntk, standard = (
        built(BUILDS[name], activation="relu", parametrisation=kind, bias=bias, num_outputs=2)
        for kind in ("ntk", "standard")
    )
    x = images()
    scaled = [(m.weight, m.scale) for m in ntk.modules() if hasattr(m, "bias_scale")]
    plain = [m.weight for m in standard.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for m in [m for m in [*ntk.modules(), *standard.modules()] if getattr(m, "bias", None) is not None]:
            m.bias.zero_()
        for (w, scale), other in zip(scaled, plain, strict=True):
            other.copy_(w * scale)
    # relu is homogeneous: sqrt(2) for each nonlinearity on the way
    factor = math.sqrt(2) ** sum(isinstance(m, nn.ReLU) for m in standard.modules())
    if "Wide" in name:
        with torch.no_grad():  # the constants before each convolution of a branch, and before the head
            for layer in [*standard.named_modules()]:
                if layer[0].endswith(("conv1", "conv2")) or layer[0] == "head":
                    layer[1].weight.mul_(math.sqrt(2))
        factor = 1.0
    assert_close(ntk(x), factor * standard(x), rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"parametrisation": "standard"}], ids=str)
@pytest.mark.parametrize("name", ["CNN", "VGG", "WideResNet"])
def test_variance_at_the_start_does_not_depend_on_the_width(name, options):
    """Over 150 seeds and ten outputs the variance has a relative error of some 0.1, as outputs share their features."""
    sized = {"CNN": ("width", (8, 32)), "VGG": ("widening", (1 / 16, 1 / 8)), "WideResNet": ("widening", (0.5, 1.0))}
    argument, sizes = sized[name]
    x, variances = images(8, (1, 8, 8)), []
    for size in sizes:
        build = functools.partial(BUILDS[name], **{argument: size})
        nets = (built(build, seed, input_shape=(1, 8, 8), num_outputs=10, **options) for seed in range(150))
        f = torch.stack([net(x) for net in nets])
        variances.append(float(f.detach().var(dim=0).mean()))
    narrow, wide = variances
    assert narrow / wide == pytest.approx(1.0, abs=0.35)


def test_hidden_preactivations_have_variance_one():
    """In a wide NTK network on inputs of norm sqrt(d), within the padding: filters of one pixel see no zeros."""
    build = functools.partial(CNN, width=400, stages=1, layers=3, filter_size=1, padding=0, stride_first=False)
    net, seen = built(build, input_shape=(3, 4, 4)), []
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    x = images(20, (3, 4, 4))
    net(x / x.square().mean(1, keepdim=True).sqrt())
    for z in seen:
        assert float(z.square().mean()) == pytest.approx(1.0, abs=0.1)


def test_gains_and_fans_are_those_of_the_weights():
    options = {"parametrisation": "standard", "input_shape": (3, 32, 32), "bias": 1.0}
    cases = (({}, 2 / (9 * 64)), ({"gain": 0.5}, 0.25 / (9 * 64)), ({"fan": "average", "gain": 1.0}, 1 / 864))
    for extra, variance in cases:
        layer = built(functools.partial(VGG, 11), **options, **extra).features[3]
        assert (layer.in_channels, layer.out_channels) == (64, 128)
        assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.02)  # of 73728 weights
        assert not layer.bias.any()
    first = built(functools.partial(VGG, 11), **options).features[0]
    assert float(first.weight.detach().var()) == pytest.approx(1 / 27, rel=0.1)


def test_mean_field_head_is_smaller_by_the_root_of_the_width():
    ntk, mean = (built(BUILDS["CNN"], head=head) for head in ("ntk", "mean_field"))
    assert_close(mean(images()) * math.sqrt(3), ntk(images()))


# ---------------------------------------------------------------------- members, sizes, refusals


@EVERY
def test_members_are_networks_by_themselves(name):
    members = InitialMembers(functools.partial(BUILDS[name], bias=0.3), [3, 5], SHAPE, 2)
    together = members.network(members.w0, images())
    for i, seed in enumerate((3, 5)):
        alone = InitialMembers(functools.partial(BUILDS[name], bias=0.3), [seed], SHAPE, 2)
        assert_close(alone.network(alone.w0, images())[0], together[i])


@EVERY
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 19), (1, 9, 12)], ids=str)
def test_images_of_any_size(name, shape):
    net = built(BUILDS[name], input_shape=shape, num_outputs=3)
    assert net(images(2, shape)).shape == (2, 3)
    assert net.width == net.head.weight.shape[1]


def test_every_place_has_a_nonlinearity_of_its_own():
    for build in BUILDS.values():
        net = built(build, activation="relu")
        calls: list[nn.Module] = []
        for m in net.modules():
            if not list(m.children()):
                m.register_forward_hook(lambda module, args, output, calls=calls: calls.append(module))
        net(images())
        assert len(calls) == len(set(map(id, calls)))


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (CNN, {"input_shape": (1, 4, 4), "stages": 3}, "would see images of side"),
        (CNN, {"input_shape": 10}, "input_shape = 10, expected a list of integers"),
        (CNN, {}, "input_shape is None, expected the shape of one sample"),
        (CNN, {"width": 0, "input_shape": SHAPE}, "width is 0, expected a finite number > 0"),
        (VGG, {"depth": 12, "input_shape": SHAPE}, "depth is 12, expected one of 11, 13, 16, 19"),
        (VGG, {"widening": -1.0, "input_shape": SHAPE}, "widening is -1.0, expected a number > 0"),
        (WideResNet, {"depth": 12, "input_shape": SHAPE}, "depth is 12"),
        (WideResNet, {"angle": 100.0, "input_shape": SHAPE}, "angle is 100.0, expected 0"),
        (ResNet18, {"bias": -1.0, "input_shape": SHAPE}, "bias is -1.0, expected a scale >= 0"),
        (VGG, {"gain": 0.0, "input_shape": SHAPE}, "gain is 0.0, expected a positive number"),
        (VGG, {"fan": "average", "input_shape": SHAPE}, "goes with parametrisation: standard alone"),
        (VGG, {"parametrisation": "standard", "head": "mean_field", "input_shape": SHAPE}, "goes with parametrisa"),
        (VGG, {"parametrisation": "mup", "input_shape": SHAPE}, "parametrisation is 'mup', expected ntk or standard"),
        (VGG, {"num_outputs": 0, "input_shape": SHAPE}, "num_outputs is 0"),
        (VGG, {"activation": "rleu", "input_shape": SHAPE}, "rleu"),
    ],
    ids=str,
)  # fmt: skip
def test_refused(build, options, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        build(**options)


def test_other_images_are_refused():
    with pytest.raises(ConfigError, match="came to a network built for"):
        built(BUILDS["CNN"])(images(2, (2, 9, 9)))


def test_convolution_is_checked():
    with pytest.raises(ConfigError, match="expected all >= 1"):
        NTKConv2d(0, 1, 3)
    with pytest.raises(ConfigError, match="a convolution got bias"):
        NTKConv2d(1, 1, 3, bias=-1.0)


# ---------------------------------------------------------------------- the doubling trick


@pytest.mark.parametrize("build", [functools.partial(FC, width=5, depth=2), *BUILDS.values()])
def test_symmetrized_network_starts_at_zero(build):
    members = InitialMembers(functools.partial(Symmetrized, build), [0, 1], SHAPE, 2)
    assert not members.network(members.w0, images()).any()
    plain = InitialMembers(build, [0, 1], SHAPE, 2)
    assert torch.equal(members.w0, plain.w0.repeat(1, 2))  # of the same seed, twice


def test_symmetrized_network_keeps_its_width():
    assert built(functools.partial(Symmetrized, BUILDS["CNN"])).width == 3
    layer = nn.Linear(2, 1)
    assert isinstance(MemberNetwork(Symmetrized(layer)), MemberNetwork)
