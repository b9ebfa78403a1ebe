"""The population loss by fresh samples, and neurons followed in the plane."""

from __future__ import annotations

import functools

import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves
from observed import interrupted, last, watch
from safetensors.torch import load_file

from lazy_lightning.callbacks import NeuronPaths, PopulationLoss, RunCheckpoint
from lazy_lightning.data import Stripe, TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import ConstantStep
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC, TwoLayer


def students(**options) -> FlowModule:
    network = functools.partial(TwoLayer, width=6, symmetric=True)
    given = {"alpha": [0.1, 10.0], "seeds": 2, "loss": "mse", "centering": False, "dt": 0.1}
    stop = {"controller": ConstantStep(), "stop": StoppingCriteria(max_steps=80)}
    return FlowModule(options.pop("network", network), **given | stop | options)


def teacher(**options) -> TeacherStudent:
    return TeacherStudent(**{"d": 2, "n_train": 15, "n_test": 10, **options})


# ---------------------------------------------------------------------- population loss


def test_loss_is_that_of_fresh_samples(tmp_path):
    run = watch(tmp_path, PopulationLoss(50), model=students(), data=teacher())
    m, index = run.module, run.table.observation.max()
    x, y, _ = m.data.fresh(50, index)
    F = m.network(m.w.detach(), x)[..., 0] * m.centering.alpha.unsqueeze(1)
    assert_close(last(run, "population/loss"), (F - y).square().mean(dim=1) / 2)
    assert "population/error" not in run.table


def test_fresh_samples_are_in_no_set_and_never_the_same():
    data = teacher()
    data.setup()
    draws = [data.fresh(5, k).x for k in range(3)] + [data.train.x, data.test.x]
    rows = torch.cat(draws)
    assert len(rows.unique(dim=0)) == len(rows)
    assert torch.equal(data.fresh(5, 1).x, draws[1])
    assert_close(data.fresh(5, 1).y, data.teacher(draws[1]))


def test_labels_have_an_error(tmp_path):
    model = FlowModule(functools.partial(FC, width=5, depth=1), stop=StoppingCriteria(max_steps=20))
    run = watch(tmp_path, PopulationLoss(), model=model, data=Stripe(d=3, n_train=20, n_test=10))
    assert last(run, "population/error").item() < 1.0


def test_real_data_are_passed_over(tmp_path):
    assert "population/loss" not in watch(tmp_path, PopulationLoss()).table


def test_resumed_run_draws_the_same(tmp_path):
    options = {
        "network": {"width": 4, "depth": 1},
        "loss": "mse",
        "data": teacher(),
        "stop": StoppingCriteria(max_steps=60),
    }
    whole = watch(tmp_path / "whole", PopulationLoss(20), **options)
    second = interrupted(tmp_path, lambda: [PopulationLoss(20)], **options)
    assert_same_curves(second.table, whole.table)
    assert whole.table["population/loss"].notna().all()


def test_members_of_several_teachers_are_measured_on_their_own(tmp_path):
    """As in a run of its own, where all draws of a trial have its number as their seed."""
    keys = ["train_seed", "teacher_seed"]
    trials = students(seeds=3, data_seeds="weights", data_seed_keys=keys)
    together = watch(tmp_path / "together", PopulationLoss(50), model=trials, data=teacher())
    losses = last(together, "population/loss")
    for seed in range(3):
        own = teacher(**dict.fromkeys(keys, seed))
        alone = watch(tmp_path / str(seed), PopulationLoss(50), model=students(seeds=[seed]), data=own)
        assert_close(losses[seed::3], last(alone, "population/loss"), rtol=1e-9)
    m, index = together.module, together.table.observation.max()
    x, _, _ = m.data.fresh(50, index)
    y = torch.stack([teacher(teacher_seed=seed).teacher(x) for seed in (0, 1, 2)] * 2)
    F = m.network(m.w.detach(), x)[..., 0] * m.centering.alpha.unsqueeze(1)
    assert_close(losses, (F - y).square().mean(dim=1) / 2)


def test_labels_of_data_seeds_have_an_error(tmp_path):
    model = FlowModule(functools.partial(FC, width=5, depth=1), data_seeds=2, stop=StoppingCriteria(max_steps=20))
    run = watch(tmp_path, PopulationLoss(), model=model, data=Stripe(d=3, n_train=20, n_test=10))
    assert (last(run, "population/error") < 1.0).all()


def test_no_samples_are_refused():
    with pytest.raises(ConfigError, match="samples >= 1"):
        PopulationLoss(0)


# ---------------------------------------------------------------------- neurons


def test_neurons_are_what_they_contribute(tmp_path):
    """Summed over neurons, the places give F on a half plane where all neurons are active or not."""
    run = watch(tmp_path, NeuronPaths(), model=students(), data=teacher())
    kept = load_file(tmp_path / "neurons.safetensors")
    m, x = run.module, run.module.test_split.x
    assert kept["places"].shape == (2, run.table.observation.max() + 1, 6, 2)
    assert kept["alpha"].tolist() == [0.1, 10.0]
    rows = [0, 2]
    F = m.network(m.w.detach()[rows], x)[..., 0] * m.centering.alpha[rows].unsqueeze(1)
    summed = torch.einsum("amd,nd->anm", kept["places"][:, -1], x).relu()
    assert_close((summed * kept["signs"][:, -1].unsqueeze(1)).sum(-1), F)
    assert_close(kept["teacher_places"], m.data.teacher_scale * m.data.teacher_weights)
    assert kept["t"][:, 0].tolist() == [0.0, 0.0]
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"figures/neuron_paths.{suffix}").stat().st_size > 5000


@pytest.mark.parametrize(
    ("network", "data"),
    [(TwoLayer, teacher(d=3)), (functools.partial(FC, width=4, depth=1), teacher())],
    ids=["in space", "other names"],
)
def test_other_networks_are_passed_over(tmp_path, network, data):
    watch(tmp_path, NeuronPaths(), model=students(network=network), data=data)
    assert not (tmp_path / "neurons.safetensors").exists()


def test_resumed_run_has_whole_paths(tmp_path):
    for name, steps, checkpoint in (("a", 30, None), ("b", 80, "a")):
        path = None if checkpoint is None else tmp_path / checkpoint / "checkpoint.ckpt"
        watch(
            tmp_path / name,
            NeuronPaths(),
            RunCheckpoint(),
            model=students(stop=StoppingCriteria(max_steps=steps)),
            data=teacher(),
            ckpt_path=path,
        )
    first, second = (load_file(tmp_path / name / "neurons.safetensors") for name in ("a", "b"))
    known = first["places"].shape[1]
    assert torch.equal(second["places"][:, :known], first["places"])
    assert second["places"].shape[1] > known
    assert second["t"][0, -1] == pytest.approx(8.0)


def test_the_teacher_drawn_is_that_of_the_recorded_members(tmp_path):
    """With a teacher for each data seed, the first members of all alphas have the first data seed."""
    model = students(data_seeds=[3, 5], data_seed_keys=["teacher_seed"], stop=StoppingCriteria(max_steps=2))
    watch(tmp_path, NeuronPaths(), model=model, data=teacher())
    (path,) = tmp_path.rglob("neurons.safetensors")
    own = teacher(teacher_seed=3)
    own.setup()
    assert_close(load_file(path)["teacher_places"], own.teacher_scale * own.teacher_weights)
