"""Transforms over a batch: what torchvision makes of one image at a time, each with draws of its own."""

import itertools

import pytest
import torch
from torch.nn.functional import pad
from torchvision.transforms import v2

from lazy_lightning.data.batched_transforms import batched

IMAGE = torch.arange(1.0, 25.0).view(2, 3, 4)
MANY = IMAGE.expand(6000, -1, -1, -1)


def outcomes(x):
    """How often each image is there, by its content."""
    found, counts = torch.unique(x.flatten(1), dim=0, return_counts=True)
    return {tuple(image.tolist()): int(count) for image, count in zip(found, counts, strict=True)}


def crops(size, margins):
    padded = pad(IMAGE, margins)
    places = [range(there - wanted + 1) for there, wanted in zip(padded.shape[1:], size, strict=True)]
    return [padded[:, a : a + size[0], b : b + size[1]] for a, b in itertools.product(*places)]


CASES = {
    "horizontal": (v2.RandomHorizontalFlip(0.5), [IMAGE, IMAGE.flip(-1)]),
    "vertical": (v2.RandomVerticalFlip(0.5), [IMAGE, IMAGE.flip(-2)]),
    "never": (v2.RandomHorizontalFlip(0.0), [IMAGE]),
    "always": (v2.RandomHorizontalFlip(1.0), [IMAGE.flip(-1)]),
    "crop": (v2.RandomCrop((2, 3)), crops((2, 3), (0, 0, 0, 0))),
    "padded": (v2.RandomCrop((3, 4), padding=1), crops((3, 4), (1, 1, 1, 1))),
    "left, top, right, bottom": (v2.RandomCrop((3, 4), padding=[2, 0, 1, 1]), crops((3, 4), (2, 1, 0, 1))),
}


@pytest.mark.parametrize("name", CASES)
def test_all_outcomes_are_there_and_equally_often(name):
    """Of 6000 images; four standard deviations."""
    transform, expected = CASES[name]
    torch.manual_seed(0)
    counts = outcomes(batched(transform)(MANY))
    assert set(counts) == {tuple(image.flatten().tolist()) for image in expected}
    share = 1 / len(expected)
    spread = 4 * (6000 * share * (1 - share)) ** 0.5
    assert all(abs(count - 6000 * share) <= spread for count in counts.values())


@pytest.mark.parametrize("name", CASES)
def test_outcomes_are_those_of_torchvision(name):
    transform, _ = CASES[name]
    torch.manual_seed(0)
    one_by_one = torch.stack([transform(IMAGE) for _ in range(600)])
    assert set(outcomes(one_by_one)) == set(outcomes(batched(transform)(MANY)))


def test_images_of_a_batch_are_moved_apart():
    torch.manual_seed(0)
    assert len(outcomes(batched(v2.RandomCrop((3, 4), padding=1))(MANY[:20]))) > 3


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomCrop((3, 4), padding=1, padding_mode="reflect"),
        v2.RandomCrop((3, 4), padding=1, fill=7.0),
        v2.RandomCrop((5, 5), pad_if_needed=True),
        v2.RandomResizedCrop((3, 4)),
        v2.GaussianBlur(3),
    ],
    ids=["reflect", "fill", "pad_if_needed", "resized", "blur"],
)
def test_all_others_are_torchvision_s_own(transform):
    """With its draws."""
    torch.manual_seed(0)
    found = batched(transform)(MANY[:5])
    torch.manual_seed(0)
    assert torch.equal(found, torch.stack([transform(IMAGE) for _ in range(5)]))


def test_a_class_of_ones_own_is_not_taken_for_its_parent():
    class Never(v2.RandomHorizontalFlip):
        def transform(self, inpt, params):
            return inpt

    assert torch.equal(batched(Never(1.0))(MANY[:3]), MANY[:3])


def test_a_crop_that_does_not_fit():
    with pytest.raises(
        ValueError, match="a crop of 9 x 4 pixels does not fit into images of 5 x 6, with their padding"
    ):
        batched(v2.RandomCrop((9, 4), padding=1))(MANY[:2])
