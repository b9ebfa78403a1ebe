"""Images replaced by noise of the same size."""

from __future__ import annotations

import torch
from fits import digits

from lazy_lightning.data.pool import uniform_pixels
from lazy_lightning.runs import configuration


def test_pixels_are_uniform_and_labels_and_splits_stay() -> None:
    plain = {"centre": False, "sphere": False}
    images, noise = digits(**plain), digits(**plain, random_pixels=True)
    for data in (images, noise):
        data.setup()
    assert torch.equal(images.train.y, noise.train.y)
    assert torch.equal(images.train.index, noise.train.index)
    assert images.train.x.shape == noise.train.x.shape
    whole = uniform_pixels((1797, 1, 8, 8))
    assert torch.equal(noise.train.x, whole[noise.train.index].double() / 255)
    counts = whole.flatten().bincount(minlength=256).double()
    expected = whole.numel() / 256
    assert ((counts - expected).square() / expected).sum() < 255 + 5 * (2 * 255) ** 0.5  # chi-square, five deviations
    flat = whole.flatten(1).double()
    assert torch.corrcoef(flat.T).fill_diagonal_(0).abs().max() < 6 / len(flat) ** 0.5


def test_images_have_the_identity_of_before() -> None:
    def family(**arguments) -> str:
        data = {"class_path": "lazy_lightning.data.Digits", "init_args": {"n_train": 10, **arguments}}
        return configuration.family({"model": {"class_path": "lazy_lightning.modules.FlowModule"}, "data": data})

    assert family(random_pixels=False) == family() != family(random_pixels=True)
