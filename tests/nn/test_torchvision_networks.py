"""torchvision's networks as networks of a module: by name, by class, and what is refused in one sentence."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUIET, error_of
from torch import nn
from torchvision import models

from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import InitialMembers, TorchvisionNetwork

TINY = ["--data.n_train=8", "--data.n_test=6", "--model.stop.max_steps=1", "--model.seeds=1", "--model.alpha=1.0"]


def build(name: str, **options) -> TorchvisionNetwork:
    return TorchvisionNetwork(name, **{"input_shape": (1, 32, 32), "num_outputs": 3, **options})


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "squeezenet1_1", "mobilenet_v2"])
def test_samples_do_not_depend_on_each_other(name):
    net, x = build(name).train(), torch.randn(3, 1, 32, 32)
    together = net(x)
    assert together.shape == (3, 3)
    torch.testing.assert_close(net(x[:1]), together[:1], rtol=1e-4, atol=1e-5)  # float32, sums of thousands of terms
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_layers_are_torchvision_s():
    ours, theirs = build("resnet18", input_shape=(3, 32, 32)), models.resnet18(norm_layer=nn.Identity, num_classes=3)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    ours.net.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(x), theirs(x))


def test_members_are_of_their_seeds():
    members = InitialMembers(functools.partial(TorchvisionNetwork, "squeezenet1_1"), [0, 1], (1, 20, 20), 2)
    x = torch.randn(2, 1, 20, 20, dtype=torch.float64)
    assert members.network(members.w0, x).shape == (2, 2, 2)
    assert not torch.equal(members.w0[0], members.w0[1])


def test_classes_know_their_outputs_as_classes():
    members = InitialMembers(functools.partial(models.SqueezeNet, "1_1", dropout=0.0), [0], (3, 20, 20), 4)
    assert members.network(members.w0, torch.randn(2, 3, 20, 20).double()).shape == (1, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "resnet81"}, "torchvision has no model 'resnet81'"),
        ({"name": "resnet18", "options": {"depth": 3}}, "torchvision's resnet18 refuses its options"),
        ({"name": "resnet18", "input_shape": (64,)}, "expected .channels, height, width"),
    ],
    ids=str,
)
def test_refused(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TorchvisionNetwork(**{"input_shape": (1, 8, 8), **arguments})


def network(text: str, folder: Path) -> list[str]:
    path = folder / "network.yaml"
    path.write_text(f"model: {{init_args: {{network: {text}}}}}\n")
    return ["fit", "--config", "digits_multiclass_fc.yaml", "--config", str(path), *QUIET[-2:], *TINY]


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8), y=np.arange(40) % 10)
    chosen = network("{class_path: lazy_lightning.nn.TorchvisionNetwork, init_args: {name: squeezenet1_1}}", tmp_path)
    images = ["--data=CIFAR10", "--data.files=images.npz", "--data.labels=multiclass", "--trainer.precision=32-true"]
    assert main([*chosen, *images]) == 0
    assert "flow of the network: 72" in capsys.readouterr().out  # 727626 weights with ten outputs


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ("{class_path: torchvision.models.resnet18}", "couples the samples of a batch"),
        ("torchvision.models.squeezenet1_1", "draws random numbers"),
        ("{class_path: torchvision.models.SqueezeNet, init_args: {dropout: 0.0}}", "cannot take samples of shape (1,"),
        ("{class_path: lazy_lightning.nn.TorchvisionNetwork, init_args: {name: resnet81}}", "has no model 'resnet81'"),
        ("{class_path: lazy_lightning.nn.VGG, init_args: {depth: 12}}", "depth"),
        ("{class_path: lazy_lightning.nn.VGGG}", "VGG"),
    ],
)  # fmt: skip
def test_told_in_one_sentence(chosen, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sentence in error_of(network(chosen, tmp_path), capsys)
