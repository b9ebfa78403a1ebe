"""LazinessIndex in a run: at w0, at the present weights, and across a resume."""

import functools

import pytest
import torch
from closeness import assert_close
from fits import digits, fit, module
from pytorch_lightning import Callback

from lazy_lightning.callbacks import RunCheckpoint
from lazy_lightning.callbacks.laziness_index import LazinessIndex
from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.ntk.laziness import PowerMethod, jacobian_norm, laziness_index, second_derivative_norm

QUICK = PowerMethod(tolerance=1e-3, max_iterations=20, starts=1)
COLUMNS = ["laziness_index", "laziness/jacobian_norm", "laziness/second_derivative_norm"]
MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
Observed = functools.partial(LazinessIndex, samples=7, method=QUICK)


def run(folder, observer, data=None, **options):
    model = module(network={"width": 6, "depth": 1}, **{"stop": StoppingCriteria(max_steps=12), **MEMBERS, **options})
    return fit(folder, model, data or digits(pca=4), [observer])


def numbers(fitted, column):
    return torch.tensor(fitted.last(column), dtype=torch.float64)


def norms(fitted, w):
    m = fitted.module
    x = m.data.train.x[:7]
    return [norm(m.network, w, x, method=QUICK) for norm in (jacobian_norm, second_derivative_norm)]


@pytest.fixture(scope="module")
def at_start(tmp_path_factory):
    return run(tmp_path_factory.mktemp("start"), Observed())


def test_is_that_of_the_start(at_start):
    """F = 0 there, at a distance of one from the labels."""
    jacobian, second = norms(at_start, at_start.module.w0)
    assert_close(numbers(at_start, COLUMNS[1]), jacobian)
    assert_close(numbers(at_start, COLUMNS[2]), second)
    alpha = torch.tensor([0.1, 0.1, 10.0, 10.0], dtype=torch.float64)
    kappa = laziness_index(torch.ones_like(alpha), jacobian, second, alpha)
    assert_close(numbers(at_start, COLUMNS[0]), kappa)


def test_every_record_carries_it(at_start):
    assert at_start.table.observation.max() > 1
    assert (at_start.table.groupby("member")[COLUMNS].nunique() == 1).all(axis=None)


def test_always_is_that_of_the_present(tmp_path):
    fitted = run(tmp_path, Observed(always=True), alpha=0.1)
    m = fitted.module
    jacobian, second = norms(fitted, m.w.detach())
    distance = (m(m.data.train.x[:7]) - m.data.train.y[:7]).square().mean(dim=1).sqrt()
    assert_close(numbers(fitted, COLUMNS[0]), laziness_index(distance, jacobian, second, m.centering.alpha))
    assert (fitted.table.groupby("member")[COLUMNS].nunique() > 1).all(axis=None)


def test_without_centering_F_has_a_start(tmp_path):
    fitted = run(tmp_path, Observed(), centering=False, stop=StoppingCriteria(max_steps=1))
    m = fitted.module
    F = m.centering.alpha.unsqueeze(1) * m.network(m.w0, m.data.train.x[:7])[..., 0]
    distance = (F - m.data.train.y[:7]).square().mean(dim=1).sqrt()
    assert_close(numbers(fitted, COLUMNS[0]), laziness_index(distance, *norms(fitted, m.w0), m.centering.alpha))


@pytest.mark.parametrize(
    ("data", "loss", "distance"),
    [
        (digits(labels="multiclass", pca=4), "cross_entropy", lambda y: torch.ones(()).double()),  # one-hot
        (TeacherStudent(d=4, n_train=20, n_test=10), "mse", lambda y: y[:7].square().mean().sqrt()),
    ],
    ids=["classes", "real"],
)
def test_other_targets(tmp_path, data, loss, distance):
    fitted = run(tmp_path, Observed(), data, loss=loss, stop=StoppingCriteria(max_steps=1), chunk_size=3)
    m = fitted.module
    expected = laziness_index(distance(m.data.train.y), *norms(fitted, m.w0), m.centering.alpha)
    assert_close(numbers(fitted, COLUMNS[0]), expected, rtol=1e-12)


class Once(LazinessIndex):
    """Counts how often it has to be measured."""

    def __init__(self, **options):
        super().__init__(samples=7, method=QUICK, **options)
        self.measured = 0

    def _measure(self, module, w):
        self.measured += 1
        return super()._measure(module, w)

    @property
    def state_key(self):
        return "LazinessIndex"


class Interrupt(Callback):
    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = True


def test_is_kept_across_a_resume(tmp_path):
    options = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}
    observers = [Once(), Once()]
    first = fit(tmp_path / "a", callbacks=[observers[0], Interrupt(), RunCheckpoint()], **options)
    second = fit(tmp_path / "b", callbacks=[observers[1]], ckpt_path=tmp_path / "a/checkpoint.ckpt", **options)
    assert [o.measured for o in observers] == [1, 0]
    assert second.table.observation.max() > first.table.observation.max()
    for column in COLUMNS:
        assert second.last(column) == first.last(column)


def test_added_to_a_resumed_run_it_still_finds_the_start(tmp_path, at_start):
    model = functools.partial(module, network={"width": 6, "depth": 1}, **MEMBERS, stop=StoppingCriteria(max_steps=12))
    fit(tmp_path / "a", model(), digits(pca=4), [Interrupt(), RunCheckpoint()])
    path = tmp_path / "a/checkpoint.ckpt"
    late = fit(tmp_path / "b", model(), digits(pca=4), [Observed()], ckpt_path=path)
    for column in COLUMNS:
        assert late.last(column) == at_start.last(column)


def test_needs_samples():
    with pytest.raises(ConfigError, match="samples >= 1"):
        LazinessIndex(samples=0)
