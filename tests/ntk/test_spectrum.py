"""Spectra against numpy, closed forms, and the invariances that they must have."""

import numpy as np
import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.alignment import label_alignment
from lazy_lightning.ntk.spectrum import (
    LabelOverlap,
    effective_rank,
    eigensystem,
    eigenvalues,
    entropy_rank,
    label_overlap,
    label_rank,
)

NAN = float("nan")
# An eigenvalue is known to some eps lambda_max; with n = 12 that is a few 1e-15 lambda_max, whatever LAPACK does.
DECOMPOSED = 3e-14


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kernel(*shape, seed=0, rank=None):
    """Features of the samples against each other, of full rank unless told."""
    features = draw(*shape, rank or 2 * shape[-1], seed=seed)
    return features @ features.mT


def with_spectrum(values, seed=0):
    Q = torch.linalg.qr(draw(len(values), len(values), seed=seed)).Q
    return (Q * torch.tensor(values, dtype=torch.float64)) @ Q.T


def numpy_overlap(K, Y):
    values, vectors = np.linalg.eigh(K.numpy())
    share = ((vectors.T @ Y.numpy()) ** 2).sum(1) / (Y.numpy() ** 2).sum()
    return values[::-1].copy(), share[::-1].copy()


# ---------------------------------------------------------------------- eigenvalues


def test_eigenvalues_are_those_of_numpy_in_descending_order():
    K = kernel(2, 3, 12)
    expected = np.linalg.eigvalsh(K.numpy())[..., ::-1].copy()
    assert_close(eigenvalues(K), expected, rtol=DECOMPOSED)
    assert_close(eigenvalues(K.float()), expected, rtol=12 * 6e-8)  # the entries were rounded


def test_known_eigenvalues():
    assert_close(eigenvalues(with_spectrum([1.0, 5.0, 0.0, 2.0])), np.array([5.0, 2.0, 1.0, 0.0]), rtol=DECOMPOSED)
    n, rho = 7, 0.3  # unit variance and equal correlations
    K = torch.full((n, n), rho, dtype=torch.float64).fill_diagonal_(1.0)
    assert_close(eigenvalues(K), np.array([1 + (n - 1) * rho] + [1 - rho] * (n - 1)), rtol=DECOMPOSED)


def test_eigensystem_makes_the_kernel_again():
    K = kernel(2, 12)
    values, vectors = eigensystem(K)
    assert_close(vectors * values.unsqueeze(-2) @ vectors.mT, K, rtol=DECOMPOSED)
    assert_close(vectors.mT @ vectors, torch.eye(12).double().expand(2, 12, 12), rtol=DECOMPOSED)


def test_a_failed_member_leaves_the_others_alone():
    K = kernel(3, 6)
    broken = K.clone()
    broken[1, 2, 3], broken[2, 0, 0] = NAN, float("inf")
    y = draw(6)
    for measure in (
        eigenvalues,
        effective_rank,
        lambda k: eigensystem(k).vectors,
        lambda k: entropy_rank(eigenvalues(k)),
        lambda k: label_overlap(k, y).share,
        lambda k: label_overlap(k, y, centered=True).share,
        lambda k: label_rank(label_overlap(k, y)),
    ):
        found = measure(broken)
        assert_close(found[0], measure(K)[0])
        assert found[1:].isnan().all()


# ---------------------------------------------------------------------- ranks


def test_ranks_of_flat_spectra_are_their_dimension():
    for dimension in (1, 3, 8):
        K = with_spectrum([2.0] * dimension + [0.0] * (8 - dimension))
        assert_close(effective_rank(K), np.float64(dimension), rtol=DECOMPOSED)
        assert_close(entropy_rank(eigenvalues(K)), np.float64(dimension), rtol=1e-12)  # -p ln p is steep at p = 0


def test_effective_rank_needs_no_eigenvalues():
    K = kernel(2, 3, 12)
    values = np.linalg.eigvalsh(K.numpy())
    assert_close(effective_rank(K), values.sum(-1) ** 2 / (values**2).sum(-1), rtol=DECOMPOSED)


def test_entropy_rank_against_its_formula():
    p = np.array([0.5, 0.25, 0.125, 0.125])
    assert_close(entropy_rank(torch.tensor(7 * p)), np.exp(-(p * np.log(p)).sum()))
    assert_close(entropy_rank(torch.tensor([1.0, 1.0, -1e-18]).double()), np.float64(2.0))


def test_ranks_of_nothing_are_nan():
    assert effective_rank(torch.zeros(3, 3)).isnan()
    assert entropy_rank(torch.zeros(3)).isnan()


@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), scale=st.floats(1e-6, 1e6))
def test_ranks_are_invariant_and_ordered(seed, n, scale):
    K = kernel(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = scale * K[order][:, order]
    ranks = torch.stack([effective_rank(K), entropy_rank(eigenvalues(K))])
    assert_close(torch.stack([effective_rank(moved), entropy_rank(eigenvalues(moved))]), ranks, rtol=1e-12)
    assert 1 - 1e-12 <= ranks[0] <= ranks[1] * (1 + 1e-12) <= n * (1 + 2e-12)


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize("centered", [False, True])
def test_shares_are_those_of_numpy(centered):
    n = 12
    K, y = kernel(2, n), draw(n, seed=1)
    found = label_overlap(K, y, centered=centered)
    H = torch.eye(n).double() - 1 / n if centered else torch.eye(n).double()
    for member in range(2):
        values, share = numpy_overlap(H @ K[member] @ H, (H @ y).unsqueeze(1))
        assert_close(found.eigenvalues[member], values, rtol=DECOMPOSED)
        assert_close(found.share[member], share, rtol=1e-12)  # gaps of a hundredth of lambda_max
    assert_close(found.cumulative[:, -1], torch.ones(2).double())


def test_targets_of_every_kind():
    K, classes = kernel(9), torch.tensor([0, 1, 2, 0, 1, 2, 7, 7, 0])
    one_hot = torch.nn.functional.one_hot(classes, 8).double()  # five of the classes do not occur, or do not matter
    assert_close(label_overlap(K, classes).share, numpy_overlap(K, one_hot)[1], rtol=1e-12)
    assert_close(label_overlap(K, one_hot).share, numpy_overlap(K, one_hot)[1], rtol=1e-12)
    assert_close(label_overlap(K, one_hot[:, 0]).share, numpy_overlap(K, one_hot[:, :1])[1], rtol=1e-12)


def test_equal_eigenvalues_share_alike():
    """One number for each eigenspace, whatever basis of it the decomposition took."""
    y = torch.tensor([3.0, 4.0, 5.0, 5.0, 5.0]).double()
    K = torch.diag(torch.tensor([2.0, 2.0, 7.0, 1.0, 1.0]).double())
    assert_close(label_overlap(K, y).share, torch.tensor([0.25, 0.125, 0.125, 0.25, 0.25]).double())


@given(seed=st.integers(0, 10**6))
def test_equal_eigenvalues_do_not_see_the_basis(seed):
    """Another order of the samples makes another basis of each eigenspace."""
    K, y = with_spectrum([5.0, 2.0, 2.0, 2.0, 0.0, 0.0], seed), draw(6, seed=seed + 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    found = label_overlap(3 * K[order][:, order], -2 * y[order])
    assert_close(found.share, label_overlap(K, y).share, rtol=1e-12)
    assert_close(found.share[1:4], found.share[1].expand(3), rtol=0)


def test_shares_and_eigenvalues_make_the_alignment():
    """y^T K y = sum lambda_i (v_i . y)^2: two roads to one number."""
    K, y = kernel(2, 12), draw(12).sign()
    for centered in (False, True):
        values, share = label_overlap(K, y, centered=centered)
        expected = (values * share).sum(-1) / values.square().sum(-1).sqrt()
        assert_close(label_alignment(K, y, centered=centered), expected, rtol=DECOMPOSED)


def test_label_rank_counts_eigenvectors():
    overlap = LabelOverlap(torch.zeros(2, 4), torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.0, 0.0, 0.0, 1.0]]).double())
    expected = {0.4: [1, 4], 0.5: [1, 4], 0.51: [2, 4], 0.75: [2, 4], 0.9: [3, 4], 0.95: [4, 4]}
    for share, ranks in expected.items():
        assert_close(label_rank(overlap, share), torch.tensor(ranks).double(), rtol=0)


def test_labels_without_size_have_no_shares():
    for y, centered in ((torch.zeros(4), False), (torch.full((4,), 3.0), True)):
        overlap = label_overlap(kernel(4), y, centered=centered)
        assert overlap.share.isnan().all()
        assert label_rank(overlap).isnan()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eigenvalues(torch.zeros(3, 4)), r"\(3, 4\)"),
        (lambda: effective_rank(torch.zeros(3)), r"\(3,\)"),
        (lambda: label_overlap(torch.zeros(3, 3), torch.zeros(4)), r"\(4,\).*3 samples"),
        (lambda: label_overlap(torch.zeros(3, 3), torch.zeros(3, 2, dtype=torch.long)), "int64"),
        (lambda: label_rank(label_overlap(torch.eye(2), torch.ones(2)), 1.0), "share is 1.0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
