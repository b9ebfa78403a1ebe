"""Members with training sets of their own: one batch of them equals its members run alone."""

import functools

import numpy as np
import pytest
import torch
from fits import digits, fit, module
from numpy.testing import assert_allclose
from torch import nn

from lazy_lightning import load_runs
from lazy_lightning.callbacks import ClosingSummary, KernelDrift, OutputsWriter
from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.nn import FC
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.objective.loss_over_sets import LossOverSets
from lazy_lightning.objective.losses import LOSSES, build_loss
from lazy_lightning.runs import configuration

ROUNDING = 1e-9
"""Relative, after 60 steps of rounding errors that differ between batched products."""
ALPHAS = [0.3, 30.0]


class TwoLayers(nn.Module):
    """A network without a member path of its own."""

    def __init__(self, input_shape, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x.flatten(1))))


def columns(fitted, member):
    """The last values of a member."""
    table = fitted.table
    row = table[(table.observation == table.observation.max()) & (table.member == member)].iloc[0]
    return row.drop(["wall", "member", "seed", "observation"]).drop("data_seed", errors="ignore")


def check_equal(together, alone, member, number):
    one, other = columns(together, member), columns(alone, number)
    chosen = [name for name in other.index if "ensemble" not in name]
    assert_allclose(
        one[chosen].to_numpy(float), other[chosen].to_numpy(float), rtol=ROUNDING, atol=1e-12, err_msg=str(member)
    )


@pytest.mark.parametrize(
    ("options", "network"),
    [
        ({}, None),
        ({"integrator": "implicit", "tol": 1e-2}, None),
        ({"chunk_size": 17, "loss": "quadratic_hinge"}, None),
        ({}, TwoLayers),
    ],
    ids=["fc", "implicit", "chunks", "vmap"],
)
def test_a_batch_of_data_seeds_equals_its_members_run_alone(tmp_path, options, network):
    """Preprocessed by their own training samples, members have test inputs of their own too."""
    stop = StoppingCriteria(max_steps=40)

    def made(**seeds):
        if network is not None:
            return FlowModule(network, alpha=ALPHAS, stop=stop, **options, **seeds)
        return module(alpha=ALPHAS, stop=stop, **options, **seeds)

    callbacks = [ClosingSummary(), OutputsWriter()]
    together = fit(tmp_path / "together", made(seeds=2, data_seeds=[4, 7]), callbacks=callbacks)
    alone = {
        seed: fit(tmp_path / str(seed), made(seeds=2), digits(train_seed=seed), callbacks=[ClosingSummary()])
        for seed in (4, 7)
    }
    ensemble = together.module.ensemble
    assert isinstance(together.module.train_split.x, MemberSamples)
    assert isinstance(together.module.test_split.x, MemberSamples)
    assert not isinstance(together.module.test_split.y, MemberSamples)  # one test set, in other units
    for member, (alpha, seed, data_seed) in enumerate(
        zip(ensemble.alphas, ensemble.seeds, ensemble.data_seeds, strict=True)
    ):
        check_equal(together, alone[data_seed], member, 2 * ALPHAS.index(alpha) + seed)


def test_rows_of_a_batch_are_those_of_runs_with_this_train_seed(tmp_path):
    together = fit(
        tmp_path, module(seeds=2, data_seeds="weights"), callbacks=[ClosingSummary(), OutputsWriter()]
    ).module
    rows = load_runs(tmp_path).sort_values("seed").reset_index(drop=True)
    assert rows["seed"].tolist() == rows["data.train_seed"].tolist() == [0, 1]
    assert rows["point"].nunique() == 2  # they are members of different points, as runs of their own would be
    test = rows.outputs.load("test")
    assert test.outputs.shape == (2, 50)
    assert (
        rows[rows["seed"] == 1].outputs.load("train").index.tolist() == together.split("train").index.sets[1].tolist()
    )
    with pytest.raises(Exception, match="different train samples"):
        rows.outputs.load("train")


CONFIG = {
    "model": {
        "class_path": "lazy_lightning.modules.FlowModule",
        "init_args": {"alpha": [0.1, 1.0], "seeds": 2, "data_seeds": [3, 5], "data_seed_keys": None},
    },
    "data": {"class_path": "lazy_lightning.data.Digits", "init_args": {"n_train": 10, "train_seed": 0}},
}


def test_a_member_has_the_identity_of_a_run_with_its_train_seed():
    alone = {
        "model": {**CONFIG["model"], "init_args": {"alpha": 0.1, "seeds": 1}},
        "data": {**CONFIG["data"], "init_args": {"n_train": 10, "train_seed": 5}},
    }
    assert configuration.members(CONFIG) == [(a, s) for a in (0.1, 1.0) for s in (0, 1) for _ in range(2)]
    assert configuration.data_seeds(CONFIG) == [3, 5] * 4
    assert configuration.family(configuration.with_data_seed(CONFIG, 5)) == configuration.family(alone)
    assert configuration.family(configuration.with_data_seed(CONFIG, 3)) != configuration.family(alone)
    assert configuration.data_seeds(alone) is None


def test_teachers_may_differ_between_members(tmp_path):
    """Then the targets of the test set do, too; with another sample of one teacher they do not."""
    data = TeacherStudent(d=6, n_train=20, n_test=15)
    stop = StoppingCriteria(max_steps=10, t_max=1e6)
    for keys, differ in ((["train_seed"], False), (["train_seed", "teacher_seed"], True), (["teacher_seed"], True)):
        model = module(loss="mse", data_seeds=2, data_seed_keys=keys, stop=stop)
        fitted = fit(tmp_path / "-".join(keys), model, data).module
        assert isinstance(fitted.test_split.y, MemberSamples) is differ
        assert not isinstance(fitted.test_split.x, MemberSamples)
        assert isinstance(fitted.train_split.x, MemberSamples) is ("train_seed" in keys)
        same = TeacherStudent(d=6, n_train=20, n_test=15, **dict.fromkeys(keys, 1))
        alone = fit(tmp_path / f"alone-{'-'.join(keys)}", module(loss="mse", stop=stop), same).module
        assert_allclose(fitted.train_outputs[1].numpy(), alone.train_outputs[0].numpy(), rtol=1e-8, atol=1e-12)


def test_the_ensemble_average_is_over_the_weights_of_one_training_set():
    ensemble = Ensemble.of([1.0, 2.0], 2, [5, 7])
    assert ensemble.groups().tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert ensemble.select([1, 2]).data_seeds == (7, 5)
    assert Ensemble.of(1.0, [4, 6], "weights").data_seeds == (4, 6)


def test_a_loss_over_sets_is_the_loss_of_each_set():
    generator = torch.Generator().manual_seed(0)
    own = torch.tensor([1, 0, 1, 2])
    for name in LOSSES:
        loss = build_loss(name)
        signs = torch.randint(2, (3, 6), generator=generator).double() * 2 - 1
        classes = torch.randint(3, (3, 6), generator=generator)
        for targets, shape in ((signs, (4, 6)), (classes, (4, 6, 3))):
            F, y = torch.randn(*shape, generator=generator, dtype=torch.float64), MemberSamples(targets, own)
            over = LossOverSets(loss)
            for method in ("per_sample", "margins", "errors", "slopes", "curvature_root", "flat"):
                every = [getattr(loss, method)(F[e : e + 1], targets[own[e]]) for e in range(4)]
                found = getattr(over, method)(F, y)
                assert found is None if every[0] is None else torch.equal(found, torch.cat(every)), (name, method)


def test_a_network_evaluates_each_member_on_its_own_samples():
    generator = torch.Generator().manual_seed(0)
    x = MemberSamples(torch.randn(2, 5, 64, generator=generator), torch.tensor([1, 0, 1]))
    for template in (FC(width=6, depth=2, input_shape=64), TwoLayers(64, 2)):
        network = MemberNetwork(template)
        for loops in (False, True):
            network.loops = loops
            w = torch.randn(3, network.weights, generator=generator)
            together, layers = network(w, x), network.preactivations(w, x)
            for e in range(3):
                alone = network(w[e : e + 1], x.sets[x.own[e]])
                torch.testing.assert_close(together[e : e + 1], alone)
                for layer, z in network.preactivations(w[e : e + 1], x.sets[x.own[e]]).items():
                    torch.testing.assert_close(layers[layer][e : e + 1], z)


def test_a_resumed_run_has_the_data_seeds_of_its_checkpoint(tmp_path):
    stop = StoppingCriteria(max_steps=20)
    first = fit(tmp_path / "first", module(data_seeds=2, stop=stop))
    path = tmp_path / "half.ckpt"
    first.trainer.save_checkpoint(path)
    whole = fit(tmp_path / "whole", module(data_seeds=2, stop=StoppingCriteria(max_steps=40)))
    going = fit(tmp_path / "second", module(data_seeds=2, stop=StoppingCriteria(max_steps=40)), ckpt_path=path)
    assert_allclose(going.last("test/loss"), whole.last("test/loss"), rtol=0)
    for other in ({"data_seeds": [0, 2]}, {"seeds": 2}):
        with pytest.raises(ConfigError, match=r"data seeds|training samples|members of"):
            fit(tmp_path / "other", module(stop=stop, **other), ckpt_path=path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: module(data_seeds=[1, 1]), "data_seeds has a value twice"),
        (lambda: module(data_seeds=0), "data_seeds is 0: give at least one"),
        (lambda: module(data_seeds="other"), "data_seeds is 'other', expected how many"),
        (lambda: module(data_seeds=[-1]), "data_seeds must be >= 0"),
        (lambda: module(data_seed_keys=["train_seed"]), "there are no data_seeds"),
        (lambda: module(data_seeds=2, data_seed_keys=["test_seed"]), "all members are tested on the same samples"),
        (lambda: module(data_seeds=2, shard="samples"), "model.shard is samples"),
        (lambda: KernelModule(functools.partial(FC, width=4), data_seeds=2), "a frozen kernel is that of one"),
    ],
)
def test_refused_data_seeds(made, message):
    with pytest.raises(ConfigError, match=message):
        made()


def test_what_needs_shared_samples_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="KernelDrift needs samples that all members share"):
        fit(tmp_path, module(data_seeds=2), callbacks=[KernelDrift(samples=5)])
    with pytest.raises(ConfigError, match=r"Digits has no teacher_seed, expected one of .*train_seed"):
        fit(tmp_path, module(data_seeds=2, data_seed_keys=["teacher_seed"]))


def test_evaluation_refuses_test_sets_of_each_member(tmp_path):
    fitted = fit(tmp_path, module(data_seeds=2, stop=StoppingCriteria(max_steps=3)))
    with pytest.raises(ConfigError, match="all members would be evaluated on the test set of the datamodule"):
        fitted.trainer.test(fitted.module, datamodule=digits(), verbose=False)
    pooled = fit(tmp_path / "pool", module(data_seeds=2, stop=StoppingCriteria(max_steps=3)), digits(statistics="pool"))
    measured = pooled.trainer.test(pooled.module, datamodule=digits(statistics="pool"), verbose=False)
    assert measured[0]["test/loss/alpha=1"] == pytest.approx(np.mean(pooled.last("test/loss")), rel=1e-9)
