"""FixedBatchNorm and torchvision's networks with it: torch's own layers and models in evaluation, to rounding."""

import functools

import pytest
import torch
from torch import nn
from torchvision import models

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import InitialMembers, TorchvisionNetwork
from lazy_lightning.nn.fixed_batch_norm import FixedBatchNorm


def with_statistics(model: nn.Module) -> nn.Module:
    """The model in evaluation and float64, with statistics and parameters of BatchNorm far from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 3.0),
                (module.weight.data, 0.5, 1.5), (module.bias.data, -0.3, 0.3),
            ):  # fmt: skip
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return model.double().eval()


LAYERS = [(nn.BatchNorm1d, ()), (nn.BatchNorm2d, (4, 3)), (nn.BatchNorm3d, (2, 2, 2))]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_layer_is_batch_norm_in_evaluation(layer, shape):
    theirs = with_statistics(layer(5, eps=0.1))
    x = torch.randn(3, 5, *shape, dtype=torch.float64)
    torch.testing.assert_close(FixedBatchNorm.of(theirs, "bn").train()(x), theirs(x), rtol=1e-14, atol=1e-14)
    plain = layer(5, affine=False).double().eval()
    torch.testing.assert_close(FixedBatchNorm.of(plain, "bn")(x), plain(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_pretrained_network_has_its_function(name):
    options = {"init_weights": False} if name == "vgg11_bn" else {}
    theirs = models.get_model(name, num_classes=3, **options)
    ours = TorchvisionNetwork(name, options, input_shape=(3, 32, 32), num_outputs=3, batch_norm="statistics")
    if name == "vgg11_bn":  # its classifier has a hundred million weights and no BatchNorm
        theirs.classifier, ours.net.classifier = nn.Flatten(), nn.Flatten()
    theirs, ours = with_statistics(theirs), ours.double()
    kept = {n: t for n, t in theirs.state_dict().items() if not n.endswith("num_batches_tracked")}
    ours.net.load_state_dict(kept)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-13 * float(theirs(x).abs().max()))
    assert [n for n, _ in ours.net.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def test_members_have_the_tangents_of_evaluation():
    """Also those of weight and bias, at which torch's eval mode is differentiated, too."""
    build = functools.partial(TorchvisionNetwork, "resnet18", batch_norm="statistics")
    members = InitialMembers(build, [0], (3, 20, 20), 1)
    theirs, x = models.resnet18(num_classes=1).double(), torch.randn(2, 3, 20, 20, dtype=torch.float64)
    names = [name.removeprefix("net.") for name in members.network.names]
    theirs.load_state_dict(
        dict(zip(names, [p[0] for p in members.network.unpack(members.w0).values()], strict=True)), strict=False
    )
    w = members.w0.clone().requires_grad_()
    (ours,) = torch.autograd.grad(members.network(w, x, members.buffers).sum(), w)
    theirs.eval()(x).sum().backward()
    expected = torch.cat([dict(theirs.named_parameters())[name].grad.flatten() for name in names])
    torch.testing.assert_close(ours[0], expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))


def test_random_networks_stay_without_batch_norm():
    plain = TorchvisionNetwork("resnet18", input_shape=(3, 32, 32), num_outputs=2)
    assert not any(isinstance(m, FixedBatchNorm | nn.modules.batchnorm._BatchNorm) for m in plain.modules())


def test_refused():
    with pytest.raises(ConfigError, match="BatchNorm layer_bn keeps no running statistics"):
        FixedBatchNorm.of(nn.BatchNorm1d(3, track_running_stats=False), "layer_bn")
    with pytest.raises(ConfigError, match="batch_norm is 'fold', expected none or statistics"):
        TorchvisionNetwork("resnet18", input_shape=(3, 32, 32), batch_norm="fold")
