"""The two-nearest-neighbours estimator on clouds of known dimension, and on ratios drawn from its own law."""

import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.intrinsic_dimension import (
    intrinsic_dimension,
    intrinsic_dimension_of_points,
    neighbour_ratios,
    two_nn,
)

NAN = float("nan")


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n=30, p=3, seed=0):
    return torch.randn(n, p, dtype=torch.float64, generator=draws(seed))


def torus(n, d, seed=0):
    """Uniform points of a flat torus: d dimensions in 2 d coordinates, of even density and without a rim."""
    angles = 2 * math.pi * torch.rand(n, d, dtype=torch.float64, generator=draws(seed))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def by_loops(x, discard):
    """The definition, point by point."""
    x = np.unique(np.asarray(x), axis=0)
    logs = []
    for i, point in enumerate(x):
        first, second = np.sort(np.linalg.norm(np.delete(x, i, axis=0) - point, axis=1))[:2]
        logs.append(np.log(second / first))
    k = len(x) - math.floor(discard * len(x))
    logs = np.sort(logs)
    return (k - 1) / (logs[:k].sum() + (len(x) - k) * logs[k - 1])


# ---------------------------------------------------------------------- the estimator on its own law


@pytest.mark.parametrize("discard", [0.0, 0.1, 0.5])
def test_unbiased_with_the_error_it_states(discard):
    """mu = U^(-1/d) has P(mu > x) = x^-d; k of N = 20 ratios make an inverse gamma of mean d, error d/(k - 2)^(1/2)."""
    clouds, n, d = 20_000, 20, 3.0
    mu = torch.rand(clouds, n, dtype=torch.float64, generator=draws()) ** (-1 / d)
    found = two_nn(mu, discard=discard)
    k = n - math.floor(discard * n)
    error = d / math.sqrt(k - 2)
    # Means of 20000; four of their standard errors. The square of an inverse gamma has heavier tails.
    assert float(found.value.mean()) == pytest.approx(d, abs=4 * error / math.sqrt(clouds))
    assert float(found.value.std()) == pytest.approx(error, rel=0.05)
    assert float(found.error.square().mean().sqrt()) == pytest.approx(error, rel=0.1)


def test_closed_form_and_the_reference_convention():
    mu = torch.tensor([1.5, 2.0, 3.0, 8.0], dtype=torch.float64)
    found, n = two_nn(mu, discard=0.0), 4
    assert_close(found.value, np.float64((n - 1) / math.log(72)))
    assert_close(found.error, np.float64((n - 1) / math.log(72) / math.sqrt(n - 2)))
    reference = (n + 1) / math.log(72)
    assert_close(found.value * (n + 1) / (n - 1), np.float64(reference))
    assert_close(two_nn(mu, discard=0.25).value, np.float64(2 / math.log(27)))  # the 8 counts as a 3


def test_what_is_discarded_does_not_matter():
    mu = torch.rand(20, dtype=torch.float64, generator=draws()) + 1
    changed = mu.where(mu < mu.sort().values[-2], 1e9)
    assert_close(two_nn(changed, discard=0.1).value, two_nn(mu, discard=0.1).value)


def test_left_out_ratios_count_not_at_all():
    mu = torch.rand(3, 12, dtype=torch.float64, generator=draws()) + 1
    mu[1, 4], mu[2, :10] = NAN, NAN
    found = two_nn(mu)
    assert_close(found.value[1], two_nn(mu[1][~mu[1].isnan()]).value)
    assert found.value[2].isnan()
    assert found.error[2].isnan()


# ---------------------------------------------------------------------- clouds


@pytest.mark.parametrize("discard", [0.0, 0.1])
@pytest.mark.parametrize("repeats", [0, 5])
def test_against_the_definition(discard, repeats):
    x = torch.cat([cloud(), cloud()[:repeats]])
    expected = np.float64(by_loops(x, discard))
    assert_close(intrinsic_dimension_of_points(x, discard=discard).value, expected)
    # d^2 = K_ii + K_jj - 2 K_ij keeps the digits above 1e-16 |x|^2; the nearest two are at d^2 ~ 1e-2 |x|^2.
    assert_close(intrinsic_dimension(x @ x.T, discard=discard).value, expected, rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_dimension_of_a_torus(d):
    """Four standard deviations, and 1.5 times the stated one, because neighbours share their distances.

    2000 points of a four-dimensional torus are 0.8 of a radian apart, where it is curved already: some percent.
    """
    found = intrinsic_dimension_of_points(torus(2000, d))
    margin = 4 * 1.5 * float(found.error) + (0.05 * d if d == 4 else 0.0)
    assert float(found.value) == pytest.approx(d, abs=margin)
    assert float(found.error) == pytest.approx(d / math.sqrt(1800), rel=0.2)


def test_features_in_many_dimensions_have_that_of_their_manifold():
    """A plane bent into 50 dimensions by cosines, as random features do."""
    n, p = 1500, 50
    x = torch.rand(n, 2, dtype=torch.float64, generator=draws())
    features = torch.cos(x @ torch.randn(2, p, dtype=torch.float64, generator=draws(1)) + torch.arange(p))
    found = intrinsic_dimension(features @ features.T)
    assert float(found.value) == pytest.approx(2, abs=6 * float(found.error))


def test_stated_error_against_the_scatter_of_clouds():
    found = intrinsic_dimension_of_points(torch.stack([torus(200, 2, seed) for seed in range(100)]))
    ratio = float(found.value.std() / found.error.mean())
    assert 1.0 < ratio < 1.5  # known to 7%: neighbours share their distances


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), offset=st.floats(0, 10))
def test_invariances(seed, scale, offset):
    """Order, unit and origin of the points do not matter; an offset of K is a feature that all points share."""
    x = cloud(12, 2, seed)
    order = torch.randperm(12, generator=draws(seed))
    rotation = torch.linalg.qr(cloud(2, 2, seed + 1)).Q
    expected = intrinsic_dimension_of_points(x).value
    moved = scale * (x[order] @ rotation + offset)
    # The nearest of twelve points are 1e-3 apart at worst, at an offset of 10.
    assert_close(intrinsic_dimension_of_points(moved).value, expected, rtol=1e-10)
    K = x[order] @ x[order].T
    assert_close(intrinsic_dimension(scale * (K + offset)).value, expected, rtol=1e-7)  # d^2 ~ 1e-6, of 10


def test_repeats_are_one_point():
    x = cloud(20)
    repeated = torch.cat([x[:3], x, x[5:7], x[6:7]])
    assert_close(intrinsic_dimension_of_points(repeated).value, intrinsic_dimension_of_points(x).value)
    # A kernel's entries for a repeat differ by rounding, each in its own way.
    noise = 2 * torch.rand(26, 26, dtype=torch.float64, generator=draws()) - 1
    for dtype, rtol in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        K = repeated @ repeated.T * (1 + torch.finfo(dtype).eps * (noise + noise.T))
        assert_close(intrinsic_dimension(K.to(dtype)).value, intrinsic_dimension_of_points(x).value, rtol=rtol)


def test_ratios_of_repeats_are_left_out():
    x = torch.tensor([0.0, 1.0, 1.0, 3.0, 1.0])
    d = (x - x.unsqueeze(1)).abs()
    assert_close(neighbour_ratios(d, d == 0), torch.tensor([3.0, 2.0, NAN, 1.5, NAN]))


def test_members_are_measured_apart():
    x = torch.stack([cloud(20, 2), cloud(20, 2, 1), cloud(20, 2, 2)])
    x[1, 5:] = x[1, 4]  # five points are left
    K = x @ x.mT
    K[2, 0, 1] = NAN
    value = intrinsic_dimension(K).value
    assert_close(value[0], intrinsic_dimension(K[0]).value)
    assert_close(value[1], intrinsic_dimension_of_points(x[1, :5]).value, rtol=1e-12)
    assert value[2].isnan()
    x[2, 0, 0] = float("inf")
    assert intrinsic_dimension_of_points(x).value.isnan().tolist() == [False, False, True]


def test_lattices_and_few_points():
    lattice = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    assert intrinsic_dimension_of_points(lattice).value.isinf()
    assert intrinsic_dimension_of_points(torch.tensor([[0.0], [1.0], [1.0], [0.0]])).value.isnan()
    assert_close(intrinsic_dimension_of_points(torch.tensor([[0.0], [1.0], [3.0]])).value, np.float64(2 / math.log(9)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intrinsic_dimension(torch.eye(2)), "three points at least, got 2"),
        (lambda: intrinsic_dimension(torch.zeros(3, 4)), r"\(3, 4\)"),
        (lambda: intrinsic_dimension_of_points(torch.zeros(5)), r"\(5,\)"),
        (lambda: intrinsic_dimension(torch.eye(5), discard=1.0), "discard is 1.0"),
        (lambda: two_nn(torch.ones(5), discard=-0.1), "discard is -0.1"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
