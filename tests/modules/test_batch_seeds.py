"""Members with orders of mini-batches, or training sets, of their own: a batch of them equals its members run alone."""

import functools

import numpy as np
import pytest
import torch
from fits import assert_same_curves, digits
from modules.test_scaled_module import scaled, small, train
from numpy.testing import assert_allclose
from pytorch_lightning import Callback
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from lazy_lightning.callbacks import KernelDrift, KernelSnapshots, RunCheckpoint, Sharpness
from lazy_lightning.cli import main
from lazy_lightning.data import Digits, Stripe
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import LearningRateSearch, MiniBatchModule
from lazy_lightning.nn import FC
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.runs import load_runs

ROUNDING = 1e-9
"""Relative, after rounding errors that differ between batched products."""
SGD = functools.partial(torch.optim.SGD, lr=0.3)


class Own(nn.Module):
    """A network without a member path of its own."""

    def __init__(self, input_shape, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x.flatten(1))))


def check_members(together, alone):
    """Each member of a table against the one whose (alpha, seed, data seed) it is, by (table, member)."""
    table, number_of = together
    for member, (other, number) in enumerate(number_of):
        one, two = table[table.member == member], other[other.member == number]
        assert len(one) == len(two)
        names = [name for name in two if name not in ("wall", "member", "seed", "data_seed") and "ensemble" not in name]
        assert_allclose(
            one[names].to_numpy(float),
            two[names].to_numpy(float),
            rtol=ROUNDING,
            atol=1e-12,
            err_msg=f"{alone} {member}",
        )


NETWORKS = {
    "fc": {},
    "vmap": {"network": Own},
    "companions": {"companions": ["linearized", "frozen_activations"]},
    "classes": {"loss": "cross_entropy", "classes": True},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_members_with_orders_of_their_own_equal_members_run_alone(tmp_path, kind):
    """The member of seed s is that of a run whose one order is drawn by s."""
    options = dict(NETWORKS[kind])
    labels = {"labels": "multiclass"} if options.pop("classes", False) else {}
    options = {"optimizer": SGD, **options}
    module, table = train(tmp_path / "all", scaled(seeds=[2, 5], batch_seed="weights", **options), data=small(**labels))
    alone = {
        s: train(tmp_path / str(s), scaled(seeds=[s], batch_seed=s, **options), data=small(**labels))[1] for s in (2, 5)
    }
    ensemble = module.ensemble
    members = [(alone[s], [0.1, 10.0].index(a)) for a, s in zip(ensemble.alphas, ensemble.seeds, strict=True)]
    check_members((table, members), kind)
    shared = train(tmp_path / "shared", scaled(seeds=[2, 5], **options), data=small(**labels))[1]
    assert not np.allclose(shared["train/loss"].iloc[-1], table["train/loss"].iloc[-1], rtol=1e-3)


def test_the_default_order_is_that_of_train_seed(tmp_path):
    default = train(tmp_path / "default", scaled(optimizer=SGD), data=small(train_seed=3))[1]
    given = train(tmp_path / "given", scaled(optimizer=SGD, batch_seed=3), data=small(train_seed=3))[1]
    assert_same_curves(default, given)


@pytest.mark.parametrize("kind", ["fc", "vmap", "companions"])
def test_members_with_training_sets_of_their_own_equal_members_run_alone(tmp_path, kind):
    options = {"optimizer": SGD, **NETWORKS[kind]}
    module, table = train(tmp_path / "all", scaled(data_seeds=[4, 7], **options))
    assert isinstance(module.train_split.x, MemberSamples)
    alone = {s: train(tmp_path / str(s), scaled(**options), data=small(train_seed=s))[1] for s in (4, 7)}
    ensemble = module.ensemble
    assert ensemble.data_seeds is not None
    members = [
        (alone[d], 2 * [0.1, 10.0].index(a) + s)
        for a, s, d in zip(ensemble.alphas, ensemble.seeds, ensemble.data_seeds, strict=True)
    ]
    check_members((table, members), kind)


def test_augmented_and_online_samples_are_those_of_the_run_of_a_member(tmp_path):
    augmented = functools.partial(Digits, n_train=45, n_test=30, batch_size=20, augment=[v2.RandomCrop(8, padding=1)])
    online = functools.partial(Stripe, d=4, n_train=40, n_test=30, batch_size=20, online=True)
    for name, data in (("augmented", augmented), ("online", online)):
        given = {"alpha": 1.0, "optimizer": SGD}
        _, table = train(tmp_path / name, scaled(data_seeds="weights", seeds=[4, 7], **given), data=data())
        alone = [train(tmp_path / f"{name}{s}", scaled(seeds=[s], **given), data=data(train_seed=s))[1] for s in (4, 7)]
        check_members((table, [(each, 0) for each in alone]), name)
        seeded = train(tmp_path / f"{name}b", scaled(batch_seed="weights", seeds=[4, 7], **given), data=data())[1]
        first = train(tmp_path / f"{name}c", scaled(batch_seed=7, seeds=[7], **given), data=data())[1]
        check_members((seeded[seeded.member == 1].assign(member=0), [(first, 0)]), name)


def test_a_search_finds_the_rate_of_each_training_set(tmp_path):
    search = LearningRateSearch((3.0, 0.3, 0.03), steps=8)
    module, _ = train(tmp_path / "all", scaled(data_seeds=[4, 7], search=search), max_steps=1, max_epochs=-1)
    for seed in (4, 7):
        own, _ = train(
            tmp_path / str(seed), scaled(search=search), data=small(train_seed=seed), max_steps=1, max_epochs=-1
        )
        rows = [i for i, d in enumerate(module.ensemble.data_seeds or ()) if d == seed]
        assert [module.rates()["network"][i] for i in rows] == own.rates()["network"].tolist()


@pytest.mark.parametrize("options", [{"batch_seed": "weights"}, {"data_seeds": 2, "seeds": 1}], ids=["order", "data"])
def test_a_resumed_run_goes_on_to_the_bit(tmp_path, options):
    """From the middle of the second epoch."""
    whole = train(tmp_path / "whole", scaled(**options), max_epochs=4)[0]
    train(tmp_path / "half", scaled(**options), RunCheckpoint(), max_steps=5, max_epochs=4)
    path = tmp_path / "half/checkpoint.ckpt"
    resumed = train(tmp_path / "resumed", scaled(**options), ckpt_path=path, max_epochs=4)[0]
    assert torch.equal(resumed.displacement(), whole.displacement())
    other = {"batch_seed": 1} if "batch_seed" in options else {**options, "data_seeds": [0, 2]}
    with pytest.raises(ConfigError, match=r"batch_seed is 1 here, but weights in the checkpoint|data seeds"):
        train(tmp_path / "other", scaled(**other), ckpt_path=path)


def test_kernels_are_measured_where_members_share_the_samples(tmp_path):
    """With orders of their own members have one training set; with training sets of their own it is refused."""
    table = train(tmp_path / "a", scaled(batch_seed="weights"), KernelDrift(samples=5))[1]
    assert table["kernel_drift/total"].iloc[-1] > 0
    with pytest.raises(ConfigError, match="KernelDrift needs samples that all members share"):
        train(tmp_path / "b", scaled(data_seeds=2), KernelDrift(samples=5))
    with pytest.raises(ConfigError, match="KernelSnapshots needs samples that all members share"):
        train(tmp_path / "c", scaled(data_seeds=2), KernelSnapshots(samples=5), data=small(n_kernel=10))


def test_the_sharpness_of_a_member_is_that_of_its_own_training_set(tmp_path):
    options = {"optimizer": SGD, "seeds": 1, "network": functools.partial(FC, width=6, depth=2)}
    sharpness = functools.partial(Sharpness, products=4, vectors=2, samples=20)
    together = train(tmp_path / "all", scaled(data_seeds=[4, 7], **options), sharpness())[1]
    for place, seed in enumerate((4, 7)):
        alone = train(tmp_path / str(seed), scaled(**options), sharpness(), data=small(train_seed=seed))[1]
        check_members((together[together.member == place].assign(member=0), [(alone, 0)]), "sharpness")
        assert alone["sharpness/largest"].iloc[-1] != 0


class Weights(Callback):
    """The displacement after every step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, module, *args):
        self.seen.append(module.displacement().detach().clone())


@pytest.mark.parametrize(
    "optimizer",
    [functools.partial(torch.optim.SGD, lr=3.0, momentum=0.9), functools.partial(torch.optim.Adam, lr=0.01)],
    ids=["momentum", "adam"],
)
def test_a_member_that_has_met_its_margins_stays_where_it_is(tmp_path, optimizer):
    options = {"loss": "hinge", "alpha": 10.0, "optimizer": optimizer, "stop_margin": 1.0}
    data = functools.partial(digits, n_train=30, n_test=20, batch_size=10)
    weights = Weights()
    module, table = train(
        tmp_path / "all", scaled(batch_seed="weights", **options), weights, data=data(), max_epochs=100
    )
    last = table[table.observation == table.observation.max()]
    assert (last.reason == StopReason.MARGINS_MET).all()
    assert (last["train/loss"] == 0).all()
    assert last["train/margin_min"].min() >= 1
    ends = [table[(table.member == i) & (table.reason == StopReason.MARGINS_MET)].iloc[0] for i in range(2)]
    first, second = (int(row.tried) for row in ends)
    assert first != second
    assert module.steps == max(first, second)  # the run ends with its last member
    for i, row in enumerate(ends):
        assert torch.equal(weights.seen[int(row.tried) - 1][i], module.displacement()[i])
        assert last[last.member == i]["t"].item() == row["t"] == pytest.approx(row["lr"] * row.tried)
    alone = train(tmp_path / "alone", scaled(batch_seed=1, **options, seeds=[1]), data=data(), max_epochs=100)[0]
    assert alone.steps == second
    assert_allclose(alone.displacement()[0].detach(), module.displacement()[1].detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_seed": -1}, "batch_seed is -1, expected an integer"),
        ({"batch_seed": "data"}, "batch_seed is 'data', expected"),
        ({"stop_margin": 1.0}, "stop_margin is 1.0 with the loss cross_entropy"),
        ({"stop_margin": 0.0, "loss": "hinge"}, "stop_margin is 0.0 with the loss hinge"),
        ({"stop_margin": 1.0, "loss": "hinge", "companions": ["linearized"]}, "model.companions"),
        ({"stop_margin": 1.0, "loss": "hinge", "observed_samples": 5}, "model.observed_samples"),
    ],
)
def test_refused_values(options, message):
    with pytest.raises(ConfigError, match=message):
        MiniBatchModule(functools.partial(FC, width=4), **options)


def test_stored_labels_are_those_of_the_observed_samples(tmp_path):
    """Where members have training sets of their own, of which some samples are observed."""
    run = ["fit", "--config", "digits_minibatch.yaml", "--data.n_train=12", "--data.n_test=10", "--data.batch_size=6"]
    members = ["--model.alpha=1.0", "--model.seeds=2", "--model.data_seeds=2", "--model.observed_samples=5"]
    place = ["--trainer.max_epochs=1", "--model.search=null", "--model.companions=null"]
    assert main([*run, *members, *place, f"--trainer.logger.save_dir={tmp_path}"]) == 0
    stored = load_runs(tmp_path).outputs.load("test")
    assert stored.outputs.shape == (4, 10, 10)
    (file,) = tmp_path.rglob("outputs.safetensors")
    arrays = load_file(file)
    assert arrays["train/labels"].shape[:2] == arrays["train/index"].shape == (4, 5)
