"""Learning rates by layer in mini-batch training: factors of the step, and muP for SGD and Adam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import assert_close
from pytorch_lightning import Trainer

from lazy_lightning.data import Digits
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import MiniBatchModule
from lazy_lightning.modules.layer_rates import LayerRates
from lazy_lightning.nn import CNN, FC
from lazy_lightning.runs.configuration import family

WIDTHS = (64, 256, 1024)


def trained(folder: Path, steps: int = 1, width: int = 8, alpha: float = 1.0, **options) -> MiniBatchModule:
    """Mini-batch training of a few steps on 20 digits."""
    options = {"optimizer": lambda rows: torch.optim.Adam(rows, lr=0.01)} | options
    module = MiniBatchModule(lambda **shapes: FC(width, **shapes), "softhinge(20)", alpha, **options)
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, precision="64-true", logger=False, max_steps=steps,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=Digits(n_train=20, n_test=10, batch_size=20))
    return module


def exponents(folder: Path, rates: LayerRates | None, optimizer=None) -> dict[str, float]:
    """d log(change)/d log(h) of each layer's preactivation, of F for the head, after one step at sqrt(h) alpha = 1."""
    changes: dict[str, list[float]] = {}
    for h in WIDTHS:
        more = {} if optimizer is None else {"optimizer": optimizer}
        module = trained(folder, 1, h, h**-0.5, layer_rates=rates, **more)
        x = module.train_split.x
        start, now = (module.network.preactivations(w.detach(), x) for w in (module.w0, module.w))
        for layer, z in now.items():
            scale = h**-0.5 if layer == "head" else 1.0
            changes.setdefault(layer, []).append(scale * float((z - start[layer]).square().mean().sqrt()))
    logs = np.log(WIDTHS)
    return {layer: float(np.polyfit(logs, np.log(change), 1)[0]) for layer, change in changes.items()}


def test_a_step_of_adam_by_mup_changes_activations_by_as_much_at_any_width(tmp_path: Path) -> None:
    """With equal rates the inner layers and F change by about sqrt(h); by muP no change depends on h."""
    plain, mup = exponents(tmp_path, None), exponents(tmp_path, "mup")
    assert list(mup) == ["hidden.0", "hidden.1", "hidden.2", "head"]
    assert max(map(abs, mup.values())) < 0.1, mup
    assert abs(plain["hidden.0"]) < 0.1
    assert min(plain["hidden.1"], plain["hidden.2"], plain["head"]) > 0.3, plain


def test_a_step_of_sgd_changes_activations_by_as_much_at_any_width(tmp_path: Path) -> None:
    """At fixed sqrt(h) alpha the factors of muP for SGD are 1."""
    found = exponents(tmp_path, "mup", lambda rows: torch.optim.SGD(rows, lr=0.1))
    assert max(map(abs, found.values())) < 0.1, found


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1),
    ],
)
def test_factors_are_learning_rates_of_parameter_groups(tmp_path: Path, optimizer) -> None:
    """Five steps are those of torch with a group for each layer, on the same loss."""
    rates = {"hidden.1": 0.3, "head.weight": 2.0, "hidden.0": 0.0}
    module = trained(tmp_path, 5, optimizer=optimizer, layer_rates=rates)
    names, slices = module.network.names, list(module.network.layer_slices().values())
    lr = optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"]
    factors = [rates.get(name, rates.get(name.rpartition(".")[0], 1.0)) for name in names]
    parts = [torch.nn.Parameter(torch.zeros_like(module.w0[:, part])) for part in slices]
    groups = [{"params": [p], "lr": lr * c} for p, c in zip(parts, factors, strict=True)]
    reference = optimizer(groups)
    x, y = module.train_split.x, module.train_split.y
    for _ in range(5):
        reference.zero_grad()
        dw = {"network": torch.cat(parts, dim=1)}
        module.total(module.losses(dw, x, y), dw).backward()
        reference.step()
    assert_close(module.displacement(), torch.cat(parts, dim=1), rtol=1e-11)
    assert bool((module.displacement()[:, slices[0]] == 0).all())


def test_the_search_for_rates_has_the_factors(tmp_path: Path) -> None:
    """Where nothing may move all candidates end with one loss, of which the first is taken."""
    from lazy_lightning.modules import LearningRateSearch

    still = dict.fromkeys(("hidden.0", "hidden.1", "hidden.2", "head"), 0.0)
    module = trained(tmp_path, layer_rates=still, search=LearningRateSearch((1e-3, 1e3), steps=2))
    assert module.rates()["network"].tolist() == [1e-3]


def test_mup_of_convolutions_has_the_fan_in(tmp_path: Path) -> None:
    """A filter of k x k pixels of c channels has c k^2 inputs."""
    from lazy_lightning.modules.layer_rates import layer_factors
    from lazy_lightning.nn.members import MemberNetwork

    network = MemberNetwork(CNN(6, 1, 2, 3, bias=1.0, input_shape=(1, 8, 8)))
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    factors = layer_factors(network, "mup", adam)
    assert factors is not None
    by_name = {name: part[0].item() for name, part in zip(network.names, factors.split(network.sizes), strict=True)}
    for name, module in network.template.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert by_name[f"{name}.weight"] == pytest.approx(fan_in**-0.5)
            assert by_name[f"{name}.bias"] == 1.0
    assert by_name["head.weight"] == 1.0


def test_rates_by_layer_out_of_range_are_refused(tmp_path: Path) -> None:
    """Each error names the value."""
    with pytest.raises(ConfigError, match=r"factor -1.0 for head"):
        MiniBatchModule(FC, layer_rates={"head": -1.0})
    for wrong in ("a", None, True):
        with pytest.raises(ConfigError, match=rf"factor {wrong!r} for head, expected a number >= 0"):
            MiniBatchModule(FC, layer_rates={"head": wrong})
    with pytest.raises(ConfigError, match="layer_rates is 3, expected mup"):
        MiniBatchModule(FC, layer_rates=3)
    with pytest.raises(ConfigError, match="'all', expected mup"):
        MiniBatchModule(FC, layer_rates="all")
    with pytest.raises(ConfigError, match="those of Rprop are not"):
        MiniBatchModule(FC, layer_rates="mup", optimizer=torch.optim.Rprop)
    with pytest.raises(ConfigError, match="known for SGD and Adam"):
        MiniBatchModule(FC, layer_rates="mup", optimizer=torch.optim.Adadelta)
    with pytest.raises(ConfigError, match=r"'hidden\.9'.*its layers are hidden\.0"):
        trained(tmp_path, layer_rates={"hidden.9": 1.0})


def test_mup_of_layers_in_torch_s_parametrisation_is_refused() -> None:
    """Their weights are of order 1/sqrt(fan_in), so they have other rates."""
    from lazy_lightning.modules.layer_rates import layer_factors
    from lazy_lightning.nn.members import MemberNetwork

    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    network = CNN(6, 1, 2, 3, parametrisation="standard", input_shape=(1, 8, 8))
    with pytest.raises(ConfigError, match="layer_rates: mup"):
        layer_factors(MemberNetwork(network), "mup", adam)


def test_no_rates_by_layer_leave_the_identity_of_a_member() -> None:
    """The key is in an identity only where it is given."""

    def identity(**options) -> str:
        model = {"class_path": "lazy_lightning.modules.MiniBatchModule", "init_args": {"loss": "mse", **options}}
        return family({"model": model, "data": {}})

    assert identity(layer_rates=None) == identity()
    assert identity(layer_rates="mup") != identity()
