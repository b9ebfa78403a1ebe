from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lazy_lightning.data import Digits
from lazy_lightning.data.preprocessing import (
    Preprocessing,
    Preprocessor,
    center,
    principal_axes,
    project,
    to_sphere,
)
from lazy_lightning.errors import ConfigError, DataError


@pytest.fixture
def x() -> Tensor:
    stream = torch.Generator().manual_seed(0)
    scales = torch.linspace(1, 3, 12, dtype=torch.float64)
    return (torch.randn(40, 12, dtype=torch.float64, generator=stream) * scales + 0.7).reshape(40, 3, 2, 2)


def test_center_and_sphere(x: Tensor) -> None:
    centred = center(x, x.mean(0))
    torch.testing.assert_close(centred.mean(0), torch.zeros(3, 2, 2).double(), atol=1e-14, rtol=0)
    on_sphere = to_sphere(centred)
    torch.testing.assert_close(on_sphere.flatten(1).square().sum(1), torch.full((40,), 12.0).double())
    torch.testing.assert_close(
        torch.cosine_similarity(on_sphere.flatten(1), centred.flatten(1)), torch.ones(40).double()
    )
    assert to_sphere(x[:0]).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_against_the_covariance_matrix(x: Tensor, whiten: bool) -> None:
    z = x.flatten(1).numpy()
    centred = z - z.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    values, vectors = values[::-1][:4], vectors[:, ::-1][:, :4]
    expected = centred @ vectors / np.sqrt(values if whiten else values.mean())
    found = project(x, principal_axes(x, 4), whiten).numpy()
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-10, atol=1e-12)
    variances = found.var(0)
    assert variances.mean() == pytest.approx(1)
    assert np.allclose(variances, 1) == whiten


def test_steps_come_in_order_with_the_statistics_of_one_set(x: Tensor) -> None:
    prepare = Preprocessor(x[:30], Preprocessing(pca=5))
    by_hand = to_sphere(center(x, x[:30].mean(0)))
    axes = principal_axes(by_hand[:30], 5)
    torch.testing.assert_close(prepare(x), project(by_hand, axes, whiten=False))
    assert torch.equal(Preprocessor(x, Preprocessing(centre=False, sphere=False))(x), x)


def test_blank_images_are_refused() -> None:
    same = torch.full((3, 1, 2, 2), 0.1, dtype=torch.float64)
    with pytest.raises(DataError, match=r"3 of 3 samples of the test set are zero .*sphere: false"):
        Preprocessor(same, Preprocessing())(same, "test")
    kept = Preprocessor(same, Preprocessing(sphere=False))(same)
    assert kept.abs().max() < 1e-15


def test_impossible_components_are_refused(x: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"pca must be from 1 to 12 \(for 40 samples of 12 inputs\), got 13"):
        principal_axes(x, 13)
    with pytest.raises(ConfigError, match=r"from 1 to 6 "):
        principal_axes(x[:6], 7)
    # Six samples span five directions about their mean.
    with pytest.raises(DataError, match=r"1 of the 6 principal components .* set pca to 5 or less"):
        project(x[:6], principal_axes(x[:6], 6), whiten=True)
    assert project(x[:6], principal_axes(x[:6], 6), whiten=False).isfinite().all()
    with pytest.raises(DataError, match="all 4 are equal"):
        principal_axes(x[:1].expand(4, -1, -1, -1), 2)


def test_datamodule_statistics_are_those_of_the_set_named() -> None:
    sizes = {"n_train": 300, "n_test": 200, "n_kernel": 50}
    train = Digits(**sizes, sphere=False)
    pool = Digits(**sizes, sphere=False, statistics="pool")
    for data in (train, pool):
        data.setup()
    assert train.train.x.mean(0).abs().max() < 1e-14
    assert pool.train.x.mean(0).abs().max() > 1e-3
    whole = Digits(1000, 797, sphere=False, statistics="pool")
    whole.setup()
    assert torch.cat([whole.train.x, whole.test.x]).mean(0).abs().max() < 1e-14


def test_ten_principal_components_of_digits() -> None:
    data = Digits(400, 100, n_kernel=20, pca=10, whiten=True)
    data.setup()
    assert data.input_shape == (10,)
    assert data.kernel.x.shape == (20, 10)
    covariance = data.train.x.T @ data.train.x / 400
    torch.testing.assert_close(covariance, torch.eye(10, dtype=torch.float64), atol=1e-10, rtol=0)
    sphere = Digits(400, 100)
    sphere.setup()
    norms = sphere.test.x.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((100,), math.sqrt(64), dtype=torch.float64))
