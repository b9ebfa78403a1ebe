"""Pictures and spectra of kernels, from kernels on disk with known correlations and eigenvalues."""

import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from made_runs import made_sweep
from safetensors.numpy import load_file, save_file

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.kernel_choice import chosen_kernels
from lazy_lightning.figures.kernel_images import class_order, correlation, kernel_images
from lazy_lightning.figures.spectra import resolved, spectra
from lazy_lightning.runs import load_runs

N = 40
"""Samples of the made kernels I + y y^T/2: correlations +-1/3, eigenvalues 1 + N/2 and 1."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_sweep(tmp_path_factory.mktemp("kernels")))


def rewritten(folder, **change):
    """The kernels of the widest network, changed."""
    path = folder / "version_2" / "kernels.safetensors"
    arrays = load_file(path)
    save_file(arrays | {name: np.ascontiguousarray(f(arrays[name])) for name, f in change.items()}, str(path))
    return load_runs(folder)


# ---------------------------------------------------------------------- which kernels


def test_of_the_widest_network_three_alphas_are_shown(runs):
    choice = chosen_kernels(runs)
    assert (choice.h, choice.seed) == (300, 0)
    scales = [shown.alpha * np.sqrt(300) for shown in choice.kernels]
    assert np.isnan(scales[0])
    assert_close(np.array(scales[1:]), np.array([1e-3, 1.0, 1e3]), rtol=1e-9)
    growth = [np.trace(shown.kernel) / np.trace(choice.kernels[0].kernel) for shown in choice.kernels[1:]]
    drifts = runs[(runs["h"] == 300) & (runs["seed"] == 0)]["kernel_drift/total"].to_numpy(copy=True)
    assert_close(np.array(growth), 1 + drifts[[0, 6, 12]])


@pytest.mark.parametrize(("scales", "shown"), [((1.0,), 2), ((1.0, 10.0), 3), ((1.0, 10.0, 100.0, 1000.0), 4)])
def test_fewer_alphas_are_shown_once(tmp_path, scales, shown):
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(None,), scales=scales, seeds=1))
    for figure in (kernel_images, spectra):
        found = figure(runs)
        assert found.table["kernel"].nunique() == shown
        found.figure.draw_without_rendering()


def test_a_broken_kernel_is_passed_over(tmp_path):
    def broken(end):
        end = end.copy()
        end[-1, 0, 0] = np.nan
        return end

    alphas = [shown.alpha for shown in chosen_kernels(rewritten(made_sweep(tmp_path), end=broken)).kernels]
    assert alphas[-1] * np.sqrt(300) == pytest.approx(10**2.5)


@pytest.mark.parametrize("figure", [kernel_images, spectra])
def test_without_kernels_refused(tmp_path, figure):
    with pytest.raises(AnalysisError, match="no kernels were kept"):
        figure(load_runs(made_sweep(tmp_path / "a", arrays=False)))
    zero = rewritten(made_sweep(tmp_path / "b"), end=np.zeros_like)
    with pytest.raises(AnalysisError, match="no kernels were kept"):
        figure(zero[zero["h"] == 300])


# ---------------------------------------------------------------------- pictures


def test_classes_are_blocks(runs):
    found = kernel_images(runs)
    image = found.figure.axes[0].get_images()[0].get_array()
    sign = np.sign(image - np.eye(N))
    assert (sign[: N // 2, : N // 2] >= 0).all()
    assert (sign[N // 2 :, N // 2 :] >= 0).all()
    assert (sign[: N // 2, N // 2 :] == -1).all()
    said = found.findings["mean correlation, at initialisation"]
    assert said == "0.333 within classes, -0.333 between"
    assert [label.get_text() for label in found.figure.axes[0].get_yticklabels()] == ["−1", "1"]


def test_the_table_holds_the_pictures(runs):
    found = kernel_images(runs)
    for axis, (_, part) in zip(found.figure.axes, found.table.groupby("kernel", sort=False), strict=False):
        image = np.zeros((N, N))
        image[part["row"], part["column"]] = part["correlation"]
        image = np.triu(image) + np.triu(image, 1).T
        assert_close(image, np.asarray(axis.get_images()[0].get_array()))
    assert len(found.table) == 4 * N * (N + 1) // 2


def test_all_panels_have_one_colour_scale(runs):
    limits = {axis.get_images()[0].get_clim() for axis in kernel_images(runs).figure.axes[:4]}
    assert len(limits) == 1


def test_many_samples_are_thinned_out_and_targets_are_no_classes():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((401, 5))
    labels = rng.standard_normal(401)
    order = class_order(features @ features.T, labels)
    assert len(order) == 134  # every third
    assert (np.diff(labels[order]) > 0).all()


@given(seed=st.integers(0, 10**6), n=st.integers(2, 9))
def test_order_and_correlations_do_not_depend_on_the_order_or_scale_of_samples(seed, n):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, n + 3))
    K, labels = features @ features.T, rng.integers(0, 3, n).astype(float)
    shuffled = rng.permutation(n)
    scale = np.exp(rng.standard_normal(n))
    assert_close(correlation(scale[:, None] * K * scale), correlation(K), rtol=1e-12)
    assert (np.abs(correlation(K)) <= 1 + 1e-12).all()
    order = class_order(K, labels)
    assert sorted(order) == list(range(n))
    again = shuffled[class_order(K[np.ix_(shuffled, shuffled)], labels[shuffled])]
    # the sign of a principal axis is fixed by its largest entry: no tie in random kernels, but for pairs
    for label in np.unique(labels):
        one, other = order[labels[order] == label].tolist(), again[labels[again] == label].tolist()
        assert one == other or len(one) == 2


# ---------------------------------------------------------------------- spectra


def test_eigenvalues_are_known(runs):
    table = spectra(runs).table
    expected = np.array([1 + N / 2] + [1.0] * (N - 1)) / (1.5 * N)
    for name, part in table.groupby("kernel"):
        assert_close(part["eigenvalue_over_trace"].to_numpy(copy=True), expected, rtol=N * 1e-15), name
    start = table[table["kernel"] == "at initialisation"]
    assert_close(start["trace"].to_numpy(copy=True), np.full(N, 1.5 * N))
    assert spectra(runs).findings["effective rank of the kernel, at initialisation"] == f"{1 / (expected**2).sum():.3g}"


def test_what_rounding_leaves_is_in_the_table_and_not_drawn(tmp_path):
    y = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
    runs = rewritten(made_sweep(tmp_path / "runs"), start=lambda start: np.stack([np.outer(y, y)] * len(start)))
    found = spectra(runs)
    start = found.table[found.table["kernel"] == "at initialisation"]
    assert start["drawn"].tolist() == [True] + [False] * (N - 1)
    assert_close(start["eigenvalue_over_trace"].to_numpy(copy=True)[:1], np.ones(1), rtol=1e-14)
    found.figure.draw_without_rendering()


def test_resolution_is_that_of_the_decomposition():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((30, 4))
    values = np.linalg.eigvalsh(features @ features.T)[::-1]
    assert resolved(values).sum() == 4
