"""Drift and alignments against their formulas written out, and the streamed ones against the dense."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from closeness import assert_close
from device_waits import no_device_waits
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.alignment import (
    KernelComparison,
    centered_kernel,
    kernel_alignment,
    label_alignment,
    relative_drift,
)

# Sums of n^2 products, n at most 20, whose terms may cancel by a factor of ten or so.
SUMMED = 2e-13


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kernel(*shape, seed=0):
    features = draw(*shape, 2 * shape[-1], seed=seed)
    return features @ features.mT


def centering(n):
    return torch.eye(n, dtype=torch.float64) - 1 / n


def written_out(K, K2, centered=True):
    H = centering(K.shape[-1]) if centered else torch.eye(K.shape[-1], dtype=torch.float64)
    A, B = (H @ K @ H).numpy(), (H @ K2 @ H).numpy()
    return (A * B).sum((-2, -1)) / np.sqrt((A**2).sum((-2, -1)) * (B**2).sum((-2, -1)))


# ---------------------------------------------------------------------- dense


def test_drift_against_numpy():
    now, start = kernel(2, 3, 6), kernel(2, 3, 6, seed=1)
    expected = np.linalg.norm(now - start, axis=(-2, -1)) / np.linalg.norm(start, axis=(-2, -1))
    assert_close(relative_drift(now, start), expected)


def test_small_drift_of_float32_kernels_keeps_its_digits():
    """They are subtracted exactly in float64; in float32 the norm of 1 + 2^-20 would be good to a tenth."""
    start = torch.ones(4, 4)
    assert_close(relative_drift(start * (1 + 2**-20), start), torch.tensor(2.0**-20).double())


@pytest.mark.parametrize("centered", [True, False])
def test_alignment_against_its_formula(centered):
    K, K2 = kernel(2, 3, 8), kernel(3, 8, seed=1)  # members of one broadcast with those of the other
    assert_close(kernel_alignment(K, K2, centered=centered), written_out(K, K2, centered), rtol=SUMMED)


def test_centered_kernel_is_that_of_centered_features():
    features = draw(7, 3)
    less_mean = features - features.mean(0)
    assert_close(centered_kernel(features @ features.T), less_mean @ less_mean.T, rtol=1e-13)


TARGETS = {
    "signs": draw(8).sign(),
    "real": draw(8, 3),
    "classes": torch.tensor([0, 2, 2, 0, 5, 5, 0, 2]),
    "one column": draw(8, 1),
}


@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("centered", [True, False])
def test_label_alignment_against_the_formed_kernel_of_the_labels(y, centered):
    Y = y.view(8, -1) if y.is_floating_point() else torch.nn.functional.one_hot(y).double()
    K = kernel(2, 8)
    expected = written_out(K, Y @ Y.T, centered)
    assert_close(label_alignment(K, y, centered=centered), expected, rtol=SUMMED)
    assert_close(kernel_alignment(K, Y @ Y.T, centered=centered), expected, rtol=SUMMED)


def test_a_kernel_made_of_the_labels_is_aligned():
    y = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    assert_close(label_alignment(torch.outer(y, y), y), np.float64(1.0), rtol=SUMMED)
    assert_close(label_alignment(torch.outer(y, y) + 3.0, y), np.float64(1.0), rtol=SUMMED)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 8), scale=st.floats(1e-6, 1e6), offset=st.floats(-10, 10))
def test_alignments_are_invariant_and_bounded(seed, n, scale, offset):
    K, K2, y = kernel(n, seed=seed), kernel(n, seed=seed + 1), draw(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved, moved2 = scale * (K + offset)[order][:, order], K2[order][:, order]
    # What the means of K and the offset, up to ten times the spread, cost.
    assert_close(kernel_alignment(moved, moved2), kernel_alignment(K, K2), rtol=1e-11)
    assert_close(label_alignment(moved, -3 * y[order] + 2), label_alignment(K, y), scale=1.0, rtol=1e-11)
    for value in (kernel_alignment(K, K2), kernel_alignment(K, K2, centered=False), label_alignment(K, y)):
        assert 0 <= value <= 1 + 1e-12  # both are positive semi-definite
    assert_close(kernel_alignment(K, K2), kernel_alignment(K2, K))
    assert_close(kernel_alignment(K, K), np.float64(1.0))


def test_a_failed_member_leaves_the_others_alone():
    K, K0, y = kernel(2, 5), kernel(5, seed=1), draw(5)
    K[1, 2, 3] = float("nan")
    for values in (relative_drift(K, K0), kernel_alignment(K, K0), label_alignment(K, y)):
        assert values.isnan().tolist() == [False, True]


def test_nothing_is_aligned_with_nothing():
    assert kernel_alignment(torch.zeros(3, 3), torch.eye(3)).isnan()
    assert kernel_alignment(torch.ones(3, 3), torch.eye(3)).isnan()  # a constant is nothing once centred
    assert label_alignment(torch.eye(3), torch.ones(3)).isnan()
    assert relative_drift(torch.eye(3), torch.zeros(3, 3)).isinf()


# ---------------------------------------------------------------------- streamed


def upper_tiles(n, cuts):
    """The upper block triangle of n samples cut before each of ``cuts``."""
    edges = [0, *sorted(cuts), n]
    spans = [slice(a, b) for a, b in pairwise(edges)]
    return [(rows, cols) for i, rows in enumerate(spans) for cols in spans[i:]]


def compared(now, start, tiles, labels=None):
    comparison = KernelComparison(now.shape[-1], now.shape[:-2], now.device, labels=labels)
    for rows, cols in tiles:
        comparison.add(rows, cols, now[..., rows, cols], start[..., rows, cols])
    return comparison


@st.composite
def tilings(draw):
    """Samples, a tiling of their pairs in any order, some tiles from below the diagonal, and member axes."""
    n = draw(st.integers(2, 20))
    tiles = draw(st.permutations(upper_tiles(n, draw(st.sets(st.integers(1, n - 1), max_size=4)))))
    swapped = draw(st.integers(0, len(tiles)))
    tiles = [(cols, rows) for rows, cols in tiles[:swapped]] + tiles[swapped:]
    return n, tiles, draw(st.sampled_from([(), (1,), (2,), (2, 3)]))


@given(tilings(), st.integers(0, 10**6), st.sampled_from(list(TARGETS)))
def test_streamed_equals_dense_for_any_tiling(tiling, seed, kind):
    n, tiles, members = tiling
    now, start = kernel(*members, n, seed=seed), kernel(*members, n, seed=seed + 1)
    labels = {
        "signs": draw(n).sign(),
        "real": draw(n, 3),
        "classes": torch.arange(n) % 3,
        "one column": draw(n, 1),
    }[kind]
    found = compared(now, start, tiles, labels)
    assert_close(found.drift, relative_drift(now, start), rtol=SUMMED)
    # With two or three samples little is left once centred, and less still of one label.
    assert_close(found.alignment, kernel_alignment(now, start), rtol=1e-10)
    assert_close(found.uncentered_alignment, kernel_alignment(now, start, centered=False), rtol=SUMMED)
    dense = label_alignment(now, labels)
    assert found.label_alignment.shape == members
    assert_close(found.label_alignment[dense.isfinite()], dense[dense.isfinite()], rtol=1e-10, scale=1.0)


@pytest.mark.parametrize("offset", [0.0, 2.0**10, 2.0**20])
def test_an_offset_costs_only_the_digits_it_hides(offset):
    """Entries on a grid of 2^-20, so that K + c is exact and its alignments are those of K.

    Alignments are left with eps c/s, a little of it; from <K, K'> - n^2 m m' they would have eps (c/s)^2, 1e-4 here.
    """
    n = 96
    now, start = ((kernel(n, seed=seed) / n * 2**20).round() / 2**20 for seed in (0, 1))
    y = draw(n).sign()
    found = compared(now + offset, start + offset, upper_tiles(n, [10, 33, 64]), y)
    error = 1.2e-16 * offset / float(now.std())
    assert_close(found.alignment, written_out(now, start), rtol=max(error, 1e-14))
    assert_close(found.label_alignment, label_alignment(now, y), rtol=max(error, 1e-14), scale=1.0)


def test_small_drift_is_not_a_difference_of_norms():
    start = kernel(20)
    change = 1e-9 * kernel(20, seed=1)
    now = start + change
    found = compared(now, start, upper_tiles(20, [7]))
    assert_close(found.drift, relative_drift(now, start))
    assert_close(found.drift, np.linalg.norm(change) / np.linalg.norm(start), rtol=1e-6)  # now was rounded


def test_tiles_of_float32_are_summed_in_float64():
    now, start, y = kernel(20).float(), kernel(20, seed=1).float(), draw(20).sign()
    found = compared(now, start, upper_tiles(20, [3, 11]), y)
    assert found.drift.dtype == found.alignment.dtype == found.label_alignment.dtype == torch.float64
    assert_close(found.drift, relative_drift(now, start))
    assert_close(found.alignment, kernel_alignment(now.double(), start.double()), rtol=SUMMED)
    assert_close(found.label_alignment, label_alignment(now.double(), y), rtol=SUMMED)


def test_a_failed_member_leaves_the_streams_of_others_alone():
    now, start, y = kernel(2, 6), kernel(2, 6, seed=1), draw(6)
    whole = compared(now, start, upper_tiles(6, [2]), y)
    broken = now.clone()
    broken[1, 0, 5] = float("nan")
    found = compared(broken, start, upper_tiles(6, [2]), y)
    for name in ("drift", "alignment", "uncentered_alignment", "label_alignment"):
        assert_close(getattr(found, name)[0], getattr(whole, name)[0], rtol=0)
        assert getattr(found, name)[1].isnan()


def test_one_tile_may_be_all():
    now, start = kernel(5), kernel(5, seed=1)
    comparison = KernelComparison(5)
    comparison.add(slice(None), slice(None), now, start)
    assert_close(comparison.drift, relative_drift(now, start))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tiles_never_wait_for_the_device():
    now, start, y = (x.cuda() for x in (kernel(2, 20), kernel(2, 20, seed=1), draw(20)))
    tiles = upper_tiles(20, [7, 12])
    compared(now, start, tiles, y)  # workspaces are made
    comparison = KernelComparison(20, (2,), "cuda", labels=y)
    with no_device_waits():
        for rows, cols in tiles:
            comparison.add(rows, cols, now[..., rows, cols], start[..., rows, cols])
        results = comparison.drift, comparison.alignment, comparison.label_alignment
    expected = relative_drift(now, start), kernel_alignment(now, start), label_alignment(now, y)
    assert_close(torch.stack(results), torch.stack(expected), rtol=SUMMED)


# ---------------------------------------------------------------------- refusals

TILE, FIRST, LAST = torch.zeros(2, 2), slice(0, 2), slice(2, 4)


def added(*tiles, **options):
    comparison = KernelComparison(4, **options)
    for rows, cols in tiles:
        comparison.add(rows, cols, TILE, TILE)
    return comparison


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_alignment(torch.eye(3), torch.eye(4)), "3 and 4 samples"),
        (lambda: kernel_alignment(torch.eye(3), torch.zeros(3, 4)), r"\(3, 4\)"),
        (lambda: label_alignment(torch.eye(3), torch.zeros(3, 1, 1)), r"\(3, 1, 1\)"),
        (lambda: label_alignment(torch.eye(3), torch.zeros(2)), r"\(2,\).*3 samples"),
        (lambda: KernelComparison(3, labels=torch.zeros(4)), r"\(4,\).*3 samples"),
        (lambda: added((FIRST, slice(1, 3))), "crosses the diagonal"),
        (lambda: added((FIRST, slice(3, 6))), r"expected \(2, 1\)"),
        (lambda: added((FIRST, slice(0, 4, 2))), "without gaps"),
        (lambda: added((FIRST, slice(4, 6))), "without gaps"),
        (lambda: added((FIRST, FIRST), batch_shape=(3,)), r"expected \(3, 2, 2\)"),
        (lambda: added((FIRST, FIRST), (LAST, LAST)).drift, "8 entries were compared, expected 16"),
        (lambda: added((FIRST, FIRST), (FIRST, LAST), (LAST, LAST), (FIRST, FIRST)).alignment, "20 entries"),
        (lambda: added((FIRST, FIRST), (FIRST, LAST), (LAST, LAST)).label_alignment, "no labels"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
