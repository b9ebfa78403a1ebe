import math

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jvp, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.losses import (
    LOSSES,
    MSE,
    CrossEntropy,
    Hinge,
    QuadraticHinge,
    SoftHinge,
    build_loss,
)

# Torch's own forward differentiation scripts some decompositions when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

F64 = torch.float64
CLASSIFIERS = ["hinge", "softhinge", "quadratic_hinge", "mse", "cross_entropy"]
HINGES = CLASSIFIERS[:3]
TASKS = {
    "binary": (lambda n, c: (torch.randn(2, 3, n, dtype=F64), torch.randn(n, dtype=F64).sign())),
    "multiclass": (lambda n, c: (torch.randn(2, 3, n, c, dtype=F64), torch.randint(c, (n,)))),
    "regression": (lambda n, c: (torch.randn(2, 3, n, c, dtype=F64), torch.randn(n, c, dtype=F64))),
}
FITTING = [(name, task) for name, kind in LOSSES.items() for task in sorted(kind.supports)]


def numpy_loss(name, F, y):
    m = F * y
    return {
        "hinge": np.maximum(0, 1 - m),
        "softhinge": np.logaddexp(0, 20 * (1 - m)) / 20,
        "quadratic_hinge": np.maximum(0, 1 - m) ** 2 / 2,
        "mse": (F - y) ** 2 / 2,
        "cross_entropy": -special.log_expit(m),
    }[name]


@pytest.mark.parametrize("name", LOSSES)
def test_binary_against_numpy(name):
    F, y = TASKS["binary"](50, 1)
    out = LOSSES[name]().per_sample(3 * F, y)
    assert out.shape == (2, 3, 50)
    np.testing.assert_allclose(out, numpy_loss(name, 3 * F.numpy(), y.numpy()), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", HINGES)
def test_one_versus_all(name):
    F, y = TASKS["multiclass"](20, 5)
    signs = -np.ones((20, 5))
    signs[np.arange(20), y] = 1
    loss = LOSSES[name]()
    np.testing.assert_allclose(loss.per_sample(F, y), numpy_loss(name, F.numpy(), signs).sum(-1), rtol=1e-13)
    np.testing.assert_allclose(loss.margins(F, y), (F.numpy() * signs).min(-1), rtol=1e-15)


def test_cross_entropy_against_torch():
    F, y = TASKS["multiclass"](20, 5)
    expected = nnf.cross_entropy(F.reshape(-1, 5), y.repeat(6), reduction="none").reshape(2, 3, 20)
    torch.testing.assert_close(CrossEntropy().per_sample(F, y), expected, rtol=1e-14, atol=0)


def test_two_classes_are_binary_cross_entropy():
    F, y = TASKS["multiclass"](20, 2)
    binary = CrossEntropy().per_sample(F[..., 1] - F[..., 0], 2.0 * y - 1)
    torch.testing.assert_close(CrossEntropy().per_sample(F, y), binary, rtol=1e-13, atol=0)


def test_mse_against_torch():
    F, y = TASKS["regression"](20, 5)
    expected = nnf.mse_loss(F, y.expand_as(F), reduction="none").sum(-1) / 2
    torch.testing.assert_close(MSE().per_sample(F, y), expected, rtol=1e-15, atol=0)
    F, y = TASKS["multiclass"](20, 5)
    expected = (F - nnf.one_hot(y, 5)).square().sum(-1) / 2
    torch.testing.assert_close(MSE().per_sample(F, y), expected, rtol=1e-15, atol=0)


def test_half_makes_the_gradient_the_residual():
    F, y = torch.randn(9, dtype=F64, requires_grad=True), torch.randn(9, dtype=F64)
    (gradient,) = torch.autograd.grad(MSE().per_sample(F, y).sum(), F)
    torch.testing.assert_close(gradient, (F - y).detach(), rtol=1e-15, atol=0)
    (gradient,) = torch.autograd.grad(QuadraticHinge().per_sample(F, torch.ones(9, dtype=F64)).sum(), F)
    torch.testing.assert_close(gradient, -torch.relu(1 - F).detach(), rtol=1e-15, atol=0)


@pytest.mark.parametrize(("name", "task"), FITTING)
def test_gradients(name, task):
    torch.manual_seed(0)
    F, y = TASKS[task](3, 3)
    F = F[0, :2].clone().requires_grad_()
    loss = LOSSES[name]()
    assert gradcheck(lambda F: loss.per_sample(F, y), F, check_forward_ad=True)
    if name != "hinge":
        assert gradgradcheck(lambda F: loss.per_sample(F, y), F)


@pytest.mark.parametrize(("name", "task"), FITTING)
def test_member_axes(name, task):
    """Batched, mapped and forward differentiated values agree with one member at a time."""
    F, y = TASKS[task](6, 4)
    loss = LOSSES[name]()
    whole = loss.per_sample(F, y)
    assert whole.shape == (2, 3, 6)
    torch.testing.assert_close(whole[1, 2], loss.per_sample(F[1, 2], y), rtol=1e-15, atol=0)
    mapped = vmap(vmap(lambda F: loss.per_sample(F, y)))(F)
    torch.testing.assert_close(mapped, whole, rtol=1e-15, atol=0)
    assert jvp(lambda F: loss.per_sample(F, y), (F,), (torch.ones_like(F),))[1].isfinite().all()
    assert loss.per_sample(F.float(), y.float() if y.is_floating_point() else y).dtype == torch.float32


@pytest.mark.parametrize("beta", [1.0, 20.0])
def test_softhinge_tails(beta):
    m = torch.tensor([-40.0, -1.0, 0.0, 1.0, 1.5, 2.05, 3.0, 10.0, 30.0], dtype=F64)
    out = SoftHinge(beta).per_sample(m, torch.ones_like(m))
    gap = beta * (1 - m.numpy())
    expected = (np.maximum(gap, 0) + np.log1p(np.exp(-np.abs(gap)))) / beta
    np.testing.assert_allclose(out, expected, rtol=1e-14)
    # Continuous where torch's default threshold of 20 would jump by exp(-20) / beta.
    edge = torch.tensor([20 - 1e-9, 20 + 1e-9], dtype=F64)
    around = SoftHinge(beta).per_sample(1 - edge / beta, torch.ones_like(edge))
    assert abs(float(around[1] - around[0]) - 2e-9 / beta) < 1e-15 * 20 / beta + 2e-15


def test_softhinge_tends_to_hinge():
    F, y = TASKS["binary"](50, 1)
    gap = SoftHinge(1e4).per_sample(F, y) - Hinge().per_sample(F, y)
    assert float(gap.abs().max()) <= math.log(2) / 1e4


def test_cross_entropy_tail_keeps_relative_precision():
    F = torch.tensor([[100.0, 0.0, -5.0]], dtype=F64)
    expected = math.exp(-100) * (1 + math.exp(-5))
    assert float(CrossEntropy().per_sample(F, torch.tensor([0]))) == pytest.approx(expected, rel=1e-13)
    far = CrossEntropy().per_sample(torch.tensor([[-1e5, 1e5]], dtype=F64), torch.tensor([0]))
    assert float(far) == 2e5


floats = hnp.arrays(np.float64, (2, 7), elements=st.floats(-1e3, 1e3) | st.just(0.0))


@settings(max_examples=50, deadline=None)
@given(F=floats, signs=hnp.arrays(np.float64, (7,), elements=st.sampled_from([-1.0, 1.0])))
def test_binary_error_iff_margin_not_positive(F, signs):
    F, y = torch.from_numpy(F), torch.from_numpy(signs)
    for name in CLASSIFIERS:
        loss = LOSSES[name]()
        assert torch.equal(loss.margins(F, y), F * y)
        assert torch.equal(loss.errors(F, y), F * y <= 0)


@settings(max_examples=50, deadline=None)
@given(
    F=hnp.arrays(np.float64, (2, 6, 4), elements=st.floats(-1e3, 1e3)),
    y=hnp.arrays(np.int64, (6,), elements=st.integers(0, 3)),
)
def test_multiclass_errors_and_margins(F, y):
    F, y = torch.from_numpy(F), torch.from_numpy(y)
    tied = (F.amax(-1, keepdim=True) == F).sum(-1) > 1
    wrong = F.argmax(-1) != y
    for name in CLASSIFIERS:
        loss = LOSSES[name]()
        errors, margins = loss.errors(F, y), loss.margins(F, y)
        assert torch.equal(errors[~tied], wrong[~tied])
        assert not errors[margins > 0].any()  # all one-versus-all margins positive: surely right
        if name not in HINGES:
            assert torch.equal(errors, margins <= 0)


@settings(max_examples=30, deadline=None)
@given(F=floats, y=hnp.arrays(np.float64, (7,), elements=st.sampled_from([-1.0, 1.0])))
def test_hinge_vanishes_iff_margins_are_met(F, y):
    F, y = torch.from_numpy(F), torch.from_numpy(y)
    for loss in (Hinge(), QuadraticHinge()):
        met = loss.margins(F, y) >= 1
        assert (loss.per_sample(F, y)[met] == 0).all()
    assert ((Hinge().per_sample(F, y) == 0) == (Hinge().margins(F, y) >= 1)).all()


def test_untrained_and_failed_outputs_are_errors():
    F = torch.tensor([0.0, -0.0, math.nan], dtype=F64)
    for name in CLASSIFIERS:
        assert LOSSES[name]().errors(F, torch.ones(3, dtype=F64)).all()
        assert LOSSES[name]().errors(F.unsqueeze(-1).expand(3, 4), torch.tensor([0, 1, 2])).all()


def test_mse_has_no_margins_for_real_targets():
    F, y = TASKS["regression"](5, 2)
    for observe in (MSE().margins, MSE().errors):
        with pytest.raises(ConfigError, match="margins and errors of regression targets"):
            observe(F, y)


@pytest.mark.parametrize("name", LOSSES)
def test_supports_and_stop(name):
    loss = build_loss(name)
    assert loss.has_margin_stop == (name in HINGES)
    for task in TASKS:
        if task in loss.supports:
            loss.check(task)
        else:
            with pytest.raises(ConfigError, match=f"the loss {name} got a {task} task.*mse"):
                loss.check(task)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("alpha", [1e-7, 1.0, 1e7])
def test_scaled_loss(name, alpha):
    """L = 1/(alpha^2 n) sum ell(F, y), one value a member, each with its own alpha."""
    F, y = TASKS["binary"](30, 1)
    alphas = torch.tensor([alpha, 2.0, 3.0], dtype=F64)
    out = LOSSES[name]().per_sample(F[0], y).sum(-1) / Centering(alphas).loss_divisor(30)
    np.testing.assert_allclose(
        out, numpy_loss(name, F[0].numpy(), y.numpy()).mean(-1) / alphas.numpy() ** 2, rtol=1e-13
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_scaled_gradient_at_extreme_alpha(dtype):
    """From F = 0 the gradient in f is alpha * ell'(0) / (n alpha^2), to full relative precision."""
    for alpha in (1e-7, 1e7):
        f = torch.zeros(4, dtype=dtype, requires_grad=True)
        divisor = Centering(torch.tensor([alpha], dtype=F64)).loss_divisor(4, dtype)
        loss = SoftHinge().per_sample(alpha * f, torch.ones(4, dtype=dtype)).sum() / divisor
        assert loss.dtype == dtype
        (gradient,) = torch.autograd.grad(loss, f)
        slope = -special.expit(20.0) / (4 * alpha)
        np.testing.assert_allclose(gradient, slope, rtol=10 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("F_shape", "y"),
    [
        ((5, 1), torch.ones(5)),  # would broadcast to (5, 5)
        ((4,), torch.ones(5)),
        ((5, 2), torch.ones(5, 3)),
        ((5,), torch.ones(5, dtype=torch.int64)),
        ((4, 3), torch.ones(5, dtype=torch.int64)),
        ((5,), torch.tensor(1.0)),
    ],
)
def test_shapes_that_do_not_fit(name, F_shape, y):
    with pytest.raises(ConfigError, match="outputs of shape"):
        LOSSES[name]().per_sample(torch.zeros(F_shape), y)


@pytest.mark.parametrize(
    ("spec", "loss"),
    [
        ("softhinge", SoftHinge(20.0)),
        ("softhinge(7)", SoftHinge(7.0)),
        (" softhinge( beta = 7.5 ) ", SoftHinge(7.5)),
        ("mse", MSE()),
        ("hinge()", Hinge()),
        (SoftHinge(3.0), SoftHinge(3.0)),
    ],
)
def test_build(spec, loss):
    assert build_loss(spec) == loss


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hnge", "hinge, softhinge, quadratic_hinge, mse, cross_entropy"),
        ("mse(2)", "only softhinge"),
        ("softhinge(x)", "not a number"),
        ("softhinge(0)", "positive"),
        ("softhinge(inf)", "positive"),
    ],
)
def test_build_errors(spec, words):
    with pytest.raises(ConfigError, match=words):
        build_loss(spec)
