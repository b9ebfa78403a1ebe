"""Curvature of the losses against automatic differentiation, the filtered pullback, and the system that they enter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import problem
from torch.testing import assert_close

from lazy_lightning.flow.tangent_system import factorized, product, solved, times
from lazy_lightning.objective.losses import Loss, build_loss

CLASSES = torch.tensor([0, 1, 2, 0, 2])
SIGNS = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
CASES = [(name, y) for name in ("softhinge(20)", "softhinge(3)", "mse", "cross_entropy") for y in (SIGNS, CLASSES)]


def outputs_for(y, seed, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    shape = (2, 5) if y.is_floating_point() else (2, 5, 3)
    return scale * torch.randn(shape, dtype=torch.float64, generator=draw)


def dense(root):
    """(E, n, c, c) S S^T."""
    return root @ root.mT


@pytest.mark.parametrize(("name", "y"), CASES, ids=lambda v: v if isinstance(v, str) else f"{v.dtype}")
@given(seed=st.integers(0, 1000))
def test_root_of_the_second_derivative(name, y, seed):
    loss, F = build_loss(name), outputs_for(y, seed)
    own, generic = loss.curvature_root(F, y), Loss.curvature_root(loss, F, y)
    if F.ndim == 2:
        assert_close(own.square(), generic.square(), rtol=1e-10, atol=1e-12)
        return
    if own.ndim == 2:
        own = torch.diag_embed(own.view(2, 5, 3))
    assert_close(dense(own), dense(generic), rtol=1e-9, atol=1e-12)


def test_quadratic_hinge_counts_what_is_below_the_margin():
    F = torch.tensor([[0.5, 2.0, -1.0, 1.5, 3.0]], dtype=torch.float64)
    assert build_loss("quadratic_hinge").curvature_root(F, SIGNS).tolist() == [[1.0, 1.0, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "case", [{}, {"chunk_size": 4}, {"centering": False}, {"y": torch.arange(6) % 3, "num_outputs": 3}], ids=str
)
def test_filtered_with_the_slopes_is_the_gradient(case):
    setting = problem((0.5, 3.0), **case)
    moved = setting.w0 + 0.1
    gradients = []
    for evaluate in (
        lambda w: setting.objective.backward(w),
        lambda w: setting.objective.filtered(w, lambda F, slopes: slopes),
    ):
        w = moved.clone().requires_grad_(True)
        evaluation = evaluate(w)
        gradients.append(w.grad)
        assert_close(evaluation.outputs, setting.objective.outputs_at(moved), rtol=1e-12, atol=1e-13)
        assert_close(evaluation.loss, setting.objective.report(evaluation.outputs).loss, rtol=1e-12, atol=0)
    assert_close(gradients[1], gradients[0], rtol=1e-11, atol=1e-14)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e6))
def test_system_against_a_dense_solution(seed, scale):
    """(D^-1 + s Theta) q = r, of block-diagonal D without zero curvature."""
    draw = torch.Generator().manual_seed(seed)
    J = torch.randn(1, 15, 40, dtype=torch.float64, generator=draw)
    kernel, right = J @ J.mT, torch.randn(1, 15, dtype=torch.float64, generator=draw)
    root = torch.randn(1, 5, 3, 3, dtype=torch.float64, generator=draw) + 2 * torch.eye(3, dtype=torch.float64)
    s = torch.tensor([scale], dtype=torch.float64)
    q = solved(factorized(kernel, root, s), root, right)
    back = torch.linalg.solve(dense(root), q.view(1, 5, 3, 1)).reshape(1, 15) + scale * product(kernel, q)
    assert_close(back, right, rtol=1e-6, atol=1e-6 * scale)
    assert_close(times(root, right, transposed=True), (root.mT @ right.view(1, 5, 3, 1)).reshape(1, 15))
