"""The laziness index and its norms: closed forms, explicit Jacobians and Hessians, and how they scale."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from problems import problem
from scipy.optimize import minimize_scalar
from torch.func import hessian, jacrev

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.ntk.laziness import (
    PowerMethod,
    jacobian_norm,
    laziness,
    laziness_index,
    second_derivative_norm,
    target_distance,
)

LONG = PowerMethod(tolerance=1e-12, max_iterations=300, starts=1)
QUICK = PowerMethod(tolerance=1e-3, starts=1)
NORMS = pytest.mark.parametrize("norm", [jacobian_norm, second_derivative_norm])


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def case(**options):
    """f, w0 and x of a few members."""
    base = problem(**{"seeds": (0, 1, 2), "samples": 5, "depth": 1, **options})
    return base.objective.network, base.w0, base.objective.x


# ---------------------------------------------------------------------- against closed forms


def test_quadratic_model():
    """f_i = x_i w^T A w / 2 has D f = x_i A w and D^2 f = x_i A."""
    Q, w, x = torch.linalg.qr(normal(4, 6, 6)).Q, normal(4, 6, seed=1), normal(7, 1, seed=2)
    A = Q @ torch.diag(torch.tensor([2.0, -5.0, 1.0, -1.0, 0.5, 0.0]).double()) @ Q.mT
    scale = x.square().mean().sqrt()

    def f(w, x):
        return torch.einsum("ei,eij,ej->e", w, A, w).unsqueeze(1) * x.T / 2

    gradient = torch.linalg.vector_norm(torch.einsum("eij,ej->ei", A, w), dim=1)
    assert_close(jacobian_norm(f, w, x, method=LONG), scale * gradient)
    assert_close(second_derivative_norm(f, w, x, method=LONG), scale * 5 * torch.ones(4).double(), rtol=1e-9)


def test_one_weight():
    """f = x w^3, whose kappa is ‖alpha f - y‖ 6 |w| ‖x‖ / (alpha (3 w^2 ‖x‖)^2)."""
    w, x, y = torch.tensor([[2.0], [-1.0]]).double(), torch.tensor([[1.0], [7.0]]).double(), torch.ones(2).double()
    alpha, size = torch.tensor([10.0, 0.1]).double(), 5.0

    def f(w, x):
        return w**3 * x.T

    distance = target_distance(alpha[:, None] * f(w, x), y)
    found = laziness(f, w, x, distance, alpha)
    expected = distance * 6 * w[:, 0].abs() * size / (alpha * (3 * w[:, 0] ** 2 * size) ** 2)
    assert_close(found.kappa, expected)


def test_two_layer_linear_network():
    """f = a . B x/sqrt(h d): Theta(x, x') = (Bx . Bx' + a^2 x . x')/(h d) and D^2 f(u, u) = 2 u_a . u_B x/sqrt(h d)."""
    h, d, n = 5, 4, 6
    f, w, x = case(depth=1, width=h, activation="linear", inputs=d, samples=n)
    for row in range(3):
        B, a = w[row, : h * d].view(h, d), w[row, h * d :]
        theta = (x @ B.T @ B @ x.T + a.square().sum() * x @ x.T) / (h * d)
        assert_close(
            jacobian_norm(f, w, x, method=LONG)[row] ** 2, torch.linalg.matrix_norm(theta, ord=2) / n, rtol=1e-11
        )
    found = second_derivative_norm(f, w, x, method=LONG)
    assert_close(found, torch.linalg.matrix_norm(x, ord=2).expand(3) / (n * h * d) ** 0.5, rtol=1e-9)


def test_linearized_network_has_none():
    members = InitialMembers(functools.partial(LinearizedNetwork, functools.partial(FC, width=4)), [0, 1], (3,), 1)

    def f(w, x):
        return members.network(w, x, members.buffers)

    found = laziness(f, members.w0, normal(5, 3), torch.ones(2).double(), torch.ones(2).double(), method=QUICK)
    assert found.second_derivative_norm.tolist() == [0.0, 0.0]
    assert found.kappa.tolist() == [0.0, 0.0]
    assert found.jacobian_norm.min() > 0


# ---------------------------------------------------------------------- against explicit derivatives


@pytest.mark.parametrize("outputs", [1, 3])
def test_jacobian_norm_of_networks(outputs):
    f, w, x = case(num_outputs=outputs, depth=2)
    found = jacobian_norm(f, w, x, method=LONG)
    for row in range(3):
        J = jacrev(lambda p: f(p.unsqueeze(0), x).flatten())(w[row])
        assert_close(found[row], torch.linalg.matrix_norm(J, ord=2) / len(x) ** 0.5, rtol=1e-11)


def largest_second_derivative(H):
    """max over angles a of the operator norm of cos a H_1 + sin a H_2: the norm of a map with two outputs."""

    def lowest(a):
        return -np.abs(np.linalg.eigvalsh(np.cos(a) * H[0] + np.sin(a) * H[1])).max()

    grid = np.linspace(0, np.pi, 200)
    best = grid[np.argmin([lowest(a) for a in grid])]
    return -minimize_scalar(lowest, bounds=(best - 0.02, best + 0.02), method="bounded", options={"xatol": 1e-9}).fun


@pytest.mark.parametrize("activation", ["softplus(5)", "tanh", "relu"])
def test_second_derivative_norm_of_networks(activation):
    """The best of several starts against the maximum itself, which two outputs leave to one angle."""
    f, w, x = case(samples=2, inputs=3, width=4, depth=2, activation=activation, seeds=(0, 1))
    found = second_derivative_norm(f, w, x, method=PowerMethod(starts=3, tolerance=1e-6))
    for row in range(2):
        H = hessian(lambda p: f(p.unsqueeze(0), x).flatten())(w[row])
        assert found[row].item() * 2**0.5 == pytest.approx(largest_second_derivative(H.numpy()), rel=1e-5)


def test_two_different_directions_are_no_better_than_one():
    """‖D^2 f(u, v)‖ is sought, and D^2 f(u, u) attains it: the eigenvectors of the Hessian of one output do."""
    f, w, x = case(samples=1, seeds=(0,))
    H = hessian(lambda p: f(p.unsqueeze(0), x).squeeze())(w[0])
    u = torch.linalg.eigh(H).eigenvectors
    along_lines = torch.einsum("ik,ij,jk->k", u, H, u).abs().max()
    assert_close(second_derivative_norm(f, w, x, method=LONG)[0], along_lines, rtol=1e-9)


# ---------------------------------------------------------------------- the power method


@NORMS
def test_never_falls_with_iterations(norm):
    f, w, x = case(samples=8)
    values = torch.stack([norm(f, w, x, method=PowerMethod(0.0, k, starts=1)) for k in (1, 2, 3, 5, 9, 20)])
    assert (values.diff(dim=0) >= -1e-14).all()
    assert (values[-1] > values[0]).all()


def test_never_falls_with_starts():
    f, w, x = case(activation="tanh", seeds=tuple(range(8)))
    values = torch.stack([second_derivative_norm(f, w, x, method=PowerMethod(1e-3, starts=k)) for k in (1, 2)])
    assert (values.diff(dim=0) >= 0).all()
    assert (values[-1] > values[0]).any()


@NORMS
def test_members_are_those_alone_though_they_end_apart(norm):
    """Also beside one that is not finite."""
    f, w, x = case(seeds=(0, 1, 2, 3))
    w = torch.cat([w, torch.full_like(w[:1], torch.nan)])
    together = norm(f, w, x, method=QUICK)
    for row in range(4):
        assert_close(together[row], norm(f, w[row : row + 1], x, method=QUICK)[0], rtol=1e-12)
    assert together[4].isnan()


@NORMS
def test_chunks(norm):
    f, w, x = case()
    assert_close(norm(f, w, x, method=QUICK, chunk_size=2), norm(f, w, x, method=QUICK), rtol=1e-12)


@NORMS
def test_float32(norm):
    f, w, x = case()
    found = norm(f, w.float(), x.float(), method=QUICK)
    assert found.dtype == torch.float32
    assert_close(found.double(), norm(f, w, x, method=QUICK), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"tolerance": -1e-3}, {"tolerance": 1.0}, {"max_iterations": 0}, {"starts": 0}, {"check_every": 0}],
    ids=str,
)
def test_method_out_of_range(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is .* expected .*: set"):
        PowerMethod(**options)


# ---------------------------------------------------------------------- the index


@pytest.mark.parametrize(
    ("F", "y", "expected"),
    [
        ([0.0, 0.0], [1.0, -1.0], 1.0),  # labels +-1 at F = 0
        ([3.0, 0.0], [0.0, 4.0], 12.5**0.5),  # real numbers
        ([[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], 12.5**0.5),
        ([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [2, 0], 3.0**0.5),  # classes: distances 1 and 1 + 4
    ],
)
def test_target_distance(F, y, expected):
    assert_close(target_distance(torch.tensor([F]), torch.tensor(y)), torch.tensor([expected]))


def test_one_over_alpha():
    f, w, x = case()
    one = torch.ones(3, dtype=torch.float64)
    found = [laziness(f, w, x, one, alpha * one, method=QUICK).kappa for alpha in (1.0, 1024.0)]
    assert torch.equal(found[0], 1024 * found[1])
    scaled = laziness(lambda w, x: 30 * f(w, x), w, x, one, one, method=QUICK)
    assert_close(scaled.kappa, found[0] / 30, rtol=1e-12)
    assert_close(laziness_index(one, scaled.jacobian_norm, scaled.second_derivative_norm, one), scaled.kappa)


def test_one_over_sqrt_width():
    """In NTK parametrisation; one neuron more or less shows in the mean over the seeds by a few percent."""
    widths, seeds = [16, 64, 256], tuple(range(6))
    one = torch.ones(len(seeds), dtype=torch.float64)
    kappa = []
    for width in widths:
        f, w, x = case(depth=1, width=width, activation="softplus(1)", seeds=seeds)
        kappa.append(laziness(f, w, x, one, one, method=QUICK).kappa.log().mean())
    assert np.polyfit(np.log(widths), kappa, 1)[0] == pytest.approx(-0.5, abs=0.1)
