from __future__ import annotations

import math

import pytest
import torch

from lazy_lightning.data import Cylinder, FlowData, Sphere, Stripe, TeacherStudent
from lazy_lightning.data.teacher_student import mean_square
from lazy_lightning.errors import ConfigError

MAKERS = {
    "stripe": lambda **options: Stripe(d=5, **options),
    "sphere": lambda **options: Sphere(d=5, **options),
    "cylinder": lambda **options: Cylinder(d=8, sphere_dims=5, stretch=3.0, **options),
    "teacher": lambda **options: TeacherStudent(d=20, **options),
}


def made(name: str, **options: int) -> FlowData:
    data = MAKERS[name](**{"n_train": 30, "n_test": 20, "n_kernel": 10} | options)
    data.setup()
    return data


@pytest.mark.parametrize("name", ["stripe", "sphere", "cylinder"])
def test_half_of_the_labels_are_positive(name: str) -> None:
    n = 40_000
    y = made(name, n_train=n).train.y
    assert y.unique().tolist() == [-1, 1]
    # Four standard deviations of a binomial, and 0.01 for the approximate medians.
    assert abs((y > 0).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(n) + 0.01


@pytest.mark.parametrize("name", MAKERS)
def test_streams_are_separate_repeatable_and_nested(name: str) -> None:
    base, larger = made(name), made(name, n_train=3000)
    assert torch.equal(base.train.x, larger.train.x[:30])
    assert torch.equal(base.train.y, larger.train.y[:30])
    assert torch.equal(base.test.x, larger.test.x)
    assert not torch.equal(base.train.x[:10], base.test.x[:10])
    assert not torch.equal(base.test.x[:10], base.kernel.x)
    other = made(name, train_seed=1)
    assert not torch.equal(other.train.x, base.train.x)
    assert torch.equal(other.test.x, base.test.x)
    assert {base.train.x.dtype, base.train.y.dtype} == {torch.float64}


def test_labels_by_their_rules() -> None:
    x = torch.tensor([[-0.31, 9.0], [-0.29, 0.0], [1.18, 0.0], [1.19, 0.0]], dtype=torch.float64)
    assert Stripe(d=2, n_train=1, n_test=1).positive(x).tolist() == [False, True, True, False]
    radius = math.sqrt(2 * (1 - 2 / 18) ** 3)
    x = torch.tensor([[radius - 0.01, 0], [0, radius + 0.01]], dtype=torch.float64)
    assert Sphere(d=2, n_train=1, n_test=1).positive(x).tolist() == [False, True]
    cylinder = Cylinder(d=3, sphere_dims=2, n_train=1, n_test=1)
    x = torch.tensor([[1.15, 0, 50], [0, 1.16, 0]], dtype=torch.float64)  # 4/3 = 1.1547^2
    assert cylinder.positive(x).tolist() == [False, True]


def test_stretch_scales_the_irrelevant_inputs_only() -> None:
    plain, stretched = (Cylinder(d=4, sphere_dims=2, stretch=s, n_train=50, n_test=5) for s in (1.0, 7.0))
    plain.setup()
    stretched.setup()
    torch.testing.assert_close(
        stretched.train.x, plain.train.x * torch.tensor([1.0, 1.0, 7.0, 7.0]).double(), rtol=1e-15, atol=0
    )
    assert torch.equal(stretched.train.y, plain.train.y)


def test_teacher() -> None:
    data = TeacherStudent(d=10, teacher_neurons=4, n_train=20_000, n_test=5)
    data.setup()
    assert (data.task, data.num_outputs, data.input_shape) == ("regression", 1, (10,))
    torch.testing.assert_close(data.train.x.norm(dim=1), torch.ones(20_000).double())
    torch.testing.assert_close(data.teacher_weights.norm(dim=1), torch.ones(4).double())
    assert set(data.teacher_signs.tolist()) <= {-1.0, 1.0}
    by_hand = sum(
        b * (data.train.x @ w).clamp(min=0) for b, w in zip(data.teacher_signs, data.teacher_weights, strict=True)
    )
    torch.testing.assert_close(data.train.y, data.teacher_scale * by_hand)
    square = data.train.y.square()
    # The closed form of E[y^2] within four standard errors of the sample mean.
    assert abs(square.mean() - 1).item() < 4 * square.std().item() / math.sqrt(20_000)
    plain = TeacherStudent(d=10, teacher_neurons=4, n_train=1, n_test=1, normalise=False)
    assert plain.teacher_scale == 1
    assert mean_square(data.teacher_weights, data.teacher_signs) == pytest.approx(data.teacher_scale**-2)
    other = TeacherStudent(d=10, teacher_neurons=4, n_train=1, n_test=1, teacher_seed=1)
    assert not torch.equal(other.teacher_weights, data.teacher_weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stripe(d=0, n_train=1, n_test=1), "must be at least 1, got 0"),
        (lambda: Cylinder(d=3, sphere_dims=4, n_train=1, n_test=1), "from 1 to d = 3, got 4"),
        (lambda: TeacherStudent(d=1, n_train=1, n_test=1), "d >= 2 inputs .* got d = 1"),
    ],
)
def test_impossible_tasks_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
