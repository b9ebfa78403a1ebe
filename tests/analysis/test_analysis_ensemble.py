"""Ensemble statistics against loops, simulations and the losses' own idea of an error."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.analysis import ensemble_statistics
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError
from lazy_lightning.objective.losses import CrossEntropy, Hinge

NAN = np.nan


def outputs(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return 0.5 + rng.normal(size=shape) + rng.normal(size=shape[1:])


def signs(n, seed=1):
    return np.sign(np.random.default_rng(seed).normal(size=n))


def brute_variance(F):
    """A mean over samples and outputs of unbiased variances over seeds."""
    s = len(F)
    columns = F.reshape(s, -1).T.tolist()
    return np.mean([sum((f - sum(c) / s) ** 2 for f in c) / (s - 1) for c in columns])


# ---------------------------------------------------------------------- against loops


@pytest.mark.parametrize("shape", [(5, 30), (5, 30, 1), (4, 20, 3)])
def test_variance_and_its_jackknife(shape):
    F = outputs(*shape)
    found = ensemble_statistics(F, np.zeros(shape[1:]))
    assert found.variance == pytest.approx(brute_variance(F), rel=1e-12)
    s = len(F)
    without = np.array([brute_variance(np.delete(F, j, axis=0)) for j in range(s)])
    jackknife = math.sqrt((s - 1) / s * ((without - without.mean()) ** 2).sum())
    assert found.variance_error == pytest.approx(widening(s - 1) * jackknife, rel=1e-10)
    assert found.seeds == s


@pytest.mark.parametrize("extra", [(), (1,)])
def test_labels_of_two_kinds(extra):
    F, y = outputs(6, 50), signs(50)
    found = ensemble_statistics(F.reshape(6, 50, *extra), y)
    wrong = np.array([np.mean([f * label <= 0 for f, label in zip(row, y, strict=True)]) for row in F])
    assert found.mean_error == pytest.approx(wrong.mean(), rel=1e-14)
    assert found.mean_error_sd == pytest.approx(wrong.std(ddof=1), rel=1e-12)
    assert found.ensemble_error == np.mean(F.mean(axis=0) * y <= 0)
    assert found.bias2 == pytest.approx(np.mean((F.mean(axis=0) - y) ** 2) - brute_variance(F) / 6, rel=1e-12)


def test_classes():
    F, y = outputs(6, 50, 4), np.random.default_rng(1).integers(0, 4, 50)
    found = ensemble_statistics(F, y)
    wrong = (F.argmax(axis=2) != y).mean(axis=1)
    assert found.mean_error == pytest.approx(wrong.mean(), rel=1e-14)
    assert found.mean_error_sd == pytest.approx(wrong.std(ddof=1), rel=1e-12)
    assert found.ensemble_error == np.mean(F.mean(axis=0).argmax(axis=1) != y)
    assert math.isnan(found.bias2)


def test_targets_of_a_regression_have_no_errors():
    F, y = outputs(6, 50, 2), outputs(50, 2)
    found = ensemble_statistics(F, y)
    assert np.isnan([found.mean_error, found.mean_error_sd, found.ensemble_error]).all()
    assert found.bias2 == pytest.approx(np.mean((F.mean(axis=0) - y) ** 2) - brute_variance(F) / 6, rel=1e-12)


def test_a_tie_is_wrong_as_it_is_for_the_losses():
    F = np.array([[0.0, 1.0, -1.0], [0.0, 0.0, 1.0]])
    y = np.array([1.0, 1.0, 1.0])
    expected = Hinge().errors(torch.tensor(F), torch.tensor(y)).double().mean().item()
    assert ensemble_statistics(F, y).mean_error == pytest.approx(expected, rel=1e-14)
    F = np.array([[[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]], [[3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]])
    classes = np.array([0, 2])
    expected = CrossEntropy().errors(torch.tensor(F), torch.tensor(classes)).double().mean().item()
    assert ensemble_statistics(F, classes).mean_error == expected == 0.5


def test_two_seeds_have_no_jackknife():
    found = ensemble_statistics(outputs(2, 5), signs(5))
    assert found.variance > 0
    assert math.isnan(found.variance_error)
    assert str(found).endswith("± nan")


def test_equal_members_vary_not_at_all():
    found = ensemble_statistics(np.tile(outputs(1, 8), (5, 1)), signs(8))
    assert found.variance < 1e-30
    assert found.variance_error < 1e-30
    assert found.mean_error_sd < 1e-15


# ---------------------------------------------------------------------- in the mean


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_variance_and_bias_are_unbiased(seeds):
    """F = y + 0.7 + noise of variance 0.09: the infinite ensemble has squared bias 0.49."""
    rng, y = np.random.default_rng(2), signs(40)
    found = [ensemble_statistics(y + 0.7 + 0.3 * rng.normal(size=(seeds, 40)), y) for _ in range(400)]
    for values, truth in (([f.variance for f in found], 0.09), ([f.bias2 for f in found], 0.49)):
        uncertainty = np.std(values) / 20
        assert np.mean(values) == pytest.approx(truth, abs=4 * uncertainty)
        assert uncertainty < 0.02 * truth


@pytest.mark.parametrize("seeds", [3, 5, 20])
@pytest.mark.parametrize("directions", [3, 40])
def test_two_errors_cover_the_variance(directions, seeds):
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(40, directions)))[0].T * np.sqrt(40 / directions)
    found = [ensemble_statistics(0.3 * rng.normal(size=(seeds, directions)) @ axes, np.zeros(40)) for _ in range(500)]
    covered = np.mean([abs(f.variance - 0.09) < 2 * f.variance_error for f in found])
    assert 0.89 < covered < 0.99
    deviation = np.std([f.variance for f in found])
    assert 0.75 < np.median([f.variance_error for f in found]) / deviation < 1.5 * widening(seeds - 1)


# ---------------------------------------------------------------------- invariances


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_scale_and_order(seed, scale):
    rng = np.random.default_rng(seed)
    F, y = outputs(5, 12, seed=seed), signs(12, seed)
    members, samples = rng.permutation(5), rng.permutation(12)
    found = ensemble_statistics(F, y)
    moved = ensemble_statistics(scale * F[members][:, samples], y[samples])
    assert moved.variance == pytest.approx(scale**2 * found.variance, rel=1e-10)
    assert moved.variance_error == pytest.approx(scale**2 * found.variance_error, rel=1e-8)
    assert moved.mean_error == pytest.approx(found.mean_error, rel=1e-12)
    assert moved.mean_error_sd == pytest.approx(found.mean_error_sd, rel=1e-10, abs=1e-15)
    assert moved.ensemble_error == found.ensemble_error


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5))
def test_the_names_of_the_classes_do_not_matter(seed, classes):
    rng = np.random.default_rng(seed)
    F, y = outputs(4, 9, classes, seed=seed), rng.integers(0, classes, 9)
    names = rng.permutation(classes)
    renamed = ensemble_statistics(F[:, :, np.argsort(names)], names[y])
    assert renamed == pytest.approx(ensemble_statistics(F, y), rel=1e-12, nan_ok=True)


# ---------------------------------------------------------------------- refusals


def failed():
    F = outputs(5, 8)
    F[1, 3], F[4, 0] = NAN, np.inf
    return F


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ensemble_statistics(failed(), signs(8)), r"members \[1, 4\]"),
        (lambda: ensemble_statistics(outputs(1, 8), signs(8)), "two seeds at least, got 1"),
        (lambda: ensemble_statistics(outputs(8), signs(8)), r"outputs have shape \(8,\)"),
        (lambda: ensemble_statistics(np.zeros((3, 0)), signs(0)), r"outputs have shape \(3, 0\)"),
        (lambda: ensemble_statistics(outputs(3, 8), signs(7)), r"labels are float64 of shape \(7,\)"),
        (lambda: ensemble_statistics(outputs(3, 8, 2), signs(8)), r"shape \(8,\), expected .*\(8, 2\) floats"),
        (lambda: ensemble_statistics(outputs(3, 8), signs(8).astype(int)), r"labels \+1 and -1 as floats"),
        (lambda: ensemble_statistics(outputs(3, 8, 3), np.arange(8) % 4), "Classes go from 0 to 3, expected 0 to 2"),
        (lambda: ensemble_statistics(outputs(3, 8, 3), np.arange(8) % 4 - 1), "Classes go from -1"),
        (lambda: ensemble_statistics(outputs(3, 2), [1.0, NAN]), "label of sample 1 is not finite"),
        (lambda: ensemble_statistics(outputs(3, 2), ["a", "b"]), "labels are <U1"),
    ],
)
def test_refused_ensembles(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()
