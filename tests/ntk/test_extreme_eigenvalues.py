"""The ends of the spectrum and the trace of a Hessian: against its dense matrix, and closed forms."""

import functools

import pytest
import torch
from closeness import assert_close
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk.estimates import random_signs, random_start
from lazy_lightning.ntk.sharpness import extreme_eigenvalues, trace_estimate
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective
from lazy_lightning.objective.losses import build_loss

ALPHA = torch.tensor([0.5, 2.0], dtype=torch.float64)


def problem(loss="softhinge(5)", outputs=1, network=None, chunk_size=None):
    """An objective of two members and weights away from w0."""
    torch.manual_seed(0)
    x = torch.randn(7, 3, dtype=torch.float64)
    y = torch.arange(7) % outputs if outputs > 1 else torch.sign(x[:, 0] * x[:, 1])
    factory = network or functools.partial(FC, width=4, depth=2)
    members = InitialMembers(factory, [0, 1], (3,), outputs, x)
    w0, buffers = members.w0.double(), members.buffers
    network = members.network.in_precision(torch.float64)
    centering = Centering(ALPHA)
    f0 = centering.base(lambda w: network(w, x, buffers), w0).detach()
    w = w0 + 0.3 * torch.randn_like(w0)
    return Objective(network, build_loss(loss), centering, x, y, f0, buffers, chunk_size), w


def dense(objective, w):
    """(E, N, N) by the definition of the loss, without the objective's own gradient."""

    def losses(weights, e):
        f = objective.network(weights, objective.x, objective.buffers) - objective.f0
        F = objective.centering.alpha.view(-1, 1, 1) * f
        ell = objective.loss.per_sample(F.squeeze(-1), objective.y)
        return ell[e].mean() / ALPHA[e] ** 2

    return torch.stack(
        [torch.autograd.functional.hessian(lambda v, e=e: losses(v, e), w)[e, :, e] for e in range(len(w))]
    )


CASES = [("softhinge(5)", 1), ("mse", 1), ("quadratic_hinge", 1), ("cross_entropy", 3)]


@pytest.mark.parametrize(("loss", "outputs"), CASES)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_products_ends_and_trace_are_those_of_the_dense_hessian(loss, outputs, chunk_size):
    objective, w = problem(loss, outputs, chunk_size=chunk_size)
    hessian = dense(objective, w)
    v = torch.randn_like(w)
    assert_close(objective.hessian_product(w, v), torch.einsum("eij,ej->ei", hessian, v))
    eigenvalues = torch.linalg.eigvalsh(hessian)
    product = functools.partial(objective.hessian_product, w)
    ends = extreme_eigenvalues(product, random_start(w.shape[1]).expand_as(w), products=w.shape[1])
    assert_close(ends.largest, eigenvalues[:, -1], rtol=1e-9)
    torch.testing.assert_close(ends.smallest, eigenvalues[:, 0], rtol=1e-6, atol=1e-8)
    trace = hessian.diagonal(dim1=1, dim2=2).sum(dim=1)
    estimate = trace_estimate(product, random_signs(400, w.shape[1]), members=2)
    assert ((estimate.value - trace).abs() < 4 * estimate.error).all()


def test_relu_counts_no_curvature_at_its_kinks():
    network = functools.partial(nn.Sequential, nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    objective, w = problem("mse", network=network)
    v = torch.randn_like(w)
    assert_close(objective.hessian_product(w, v), torch.einsum("eij,ej->ei", dense(objective, w), v))


def test_linear_regression_has_the_sharpness_of_its_covariance():
    """For ell = (F - y)^2/2, F = alpha w x and L over alpha^2, the Hessian is x^T x / n."""
    objective, w = problem("mse", network=functools.partial(nn.Linear, 3, 1, bias=False))
    product = functools.partial(objective.hessian_product, w)
    ends = extreme_eigenvalues(product, random_start(3).expand_as(w))
    covariance = objective.x.T @ objective.x / 7
    expected = torch.linalg.eigvalsh(covariance)
    assert_close(ends.largest, expected[-1].expand(2))
    assert_close(ends.smallest, expected[0].expand(2))
    assert (ends.error < 1e-12).all()


def test_error_bounds_what_is_missing():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 60, 60, dtype=torch.float64, generator=generator)
    matrix = matrix + matrix.mT
    exact = torch.linalg.eigvalsh(matrix)
    start = random_start(60).expand(3, -1)
    for products in (4, 12, 40, 60):
        ends = extreme_eigenvalues(lambda v: torch.einsum("eij,ej->ei", matrix, v), start, products)
        nearest = (exact - ends.largest.unsqueeze(1)).abs().amin(dim=1)
        assert (nearest <= ends.error + 1e-10).all()
        assert (ends.largest <= exact[:, -1] + 1e-10).all()
    assert_close(ends.largest, exact[:, -1], rtol=1e-8)


def test_negative_definite_and_exhausted_spaces():
    """A space that is exhausted exactly adds no eigenvalue of zero."""
    diagonal = torch.tensor([[-1.0, -1.0, -1.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
    ends = extreme_eigenvalues(lambda v: diagonal * v, torch.ones(2, 3, dtype=torch.float64), 3)
    assert ends.largest.tolist() == pytest.approx([-1, 2])
    assert ends.smallest.tolist() == pytest.approx([-1, 2])


def test_a_member_that_is_not_finite_leaves_the_others_alone():
    diagonal = torch.tensor([[torch.nan, 1.0], [2.0, 1.0]], dtype=torch.float64)
    ends = extreme_eigenvalues(lambda v: diagonal * v, torch.ones(2, 2, dtype=torch.float64))
    assert ends.largest.isnan().tolist() == [True, False]
    assert ends.largest[1] == pytest.approx(2)


def test_too_few_vectors_are_refused():
    with pytest.raises(ConfigError, match="products is 0"):
        extreme_eigenvalues(lambda v: v, torch.ones(1, 2), 0)
    with pytest.raises(ConfigError, match="at least 2 vectors"):
        trace_estimate(lambda v: v, random_signs(1, 2), 1)
