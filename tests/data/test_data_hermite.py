"""HermiteRegression: moments, orthonormality, streams; the network that is trained on it."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close

from lazy_lightning.data import HermiteRegression
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import QuadraticCommittee


def made(**options) -> HermiteRegression:
    data = HermiteRegression(**{"d": 5, "n_train": 30, "n_test": 20, **options})
    data.setup()
    return data


def test_the_default_is_half_the_square_of_the_projection() -> None:
    data = made()
    assert_close(data.direction.norm(), torch.tensor(math.sqrt(5), dtype=torch.float64), rtol=1e-14)
    assert_close(data.train.y, (data.train.x @ data.direction).square() / 2, rtol=1e-12)


def test_coefficients_are_the_moments_of_the_targets() -> None:
    c = [0.3, -0.5, 0.8, 0.4]
    y = made(coefficients=c, n_train=200_000).train.y
    assert abs(float(y.mean()) - c[0]) < 0.015
    assert abs(float(y.square().mean()) / sum(value**2 for value in c) - 1) < 0.05
    u = torch.tensor([0.7, -1.3], dtype=torch.float64)
    data = made(coefficients=[0, 0, 0, 1.0], d=1)
    x = (u / data.direction).unsqueeze(1)
    assert_close(data.teacher(x), (u**3 - 3 * u) / math.sqrt(6), rtol=1e-12)
    assert made(coefficients=[2.0]).train.y.tolist() == [2.0] * 30


def test_each_set_depends_on_its_own_seed_and_the_teachers() -> None:
    base, larger, other = made(), made(n_train=2000), made(teacher_seed=1)
    assert torch.equal(base.train.x, larger.train.x[:30])
    assert torch.equal(base.train.x, other.train.x)
    assert not torch.equal(base.train.y, other.train.y)


@pytest.mark.parametrize("options", [{"d": 0}, {"coefficients": []}, {"coefficients": [math.inf]}])
def test_values_out_of_range_are_refused(options) -> None:
    with pytest.raises(ConfigError, match="Hermite teacher needs"):
        HermiteRegression(**{"n_train": 1, "n_test": 1, **options})


def test_tangent_kernel_of_a_wide_committee_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    m, epsilon = 100_000, 0.5
    net = QuadraticCommittee(m, epsilon, input_shape=(3,)).double()
    x = torch.tensor([[0.5, -0.2, 0.9], [0.3, 1.0, -0.4]], dtype=torch.float64)
    rows = [torch.autograd.grad(net(x[i : i + 1]).squeeze(), net.hidden.weight)[0].flatten() for i in range(2)]
    kernel = m * torch.stack(rows) @ torch.stack(rows).T
    products = x @ x.T
    assert_close(kernel, products * (1 + epsilon**2 * products), rtol=0.05)
    for options in ({"width": 0}, {"epsilon": math.nan}, {"num_outputs": 2}):
        with pytest.raises(ConfigError, match="a committee"):
            QuadraticCommittee(**{"input_shape": 3, **options})
