"""Mini-batches: each sample once an epoch, places that can be gone back to, and augmentation by streams of its own."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from lazy_lightning.data import Digits
from lazy_lightning.data.augmentation import Augmentation
from lazy_lightning.data.mini_batches import MiniBatches
from lazy_lightning.data.preprocessing import channel_statistics, standardise
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError, DataError

CROP = v2.RandomCrop(8, padding=2)
FLIP = v2.RandomHorizontalFlip()


def split(n: int) -> Split:
    return Split(torch.arange(float(n)), torch.arange(n), torch.arange(n))


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_sample_once_an_epoch(n, size, seed, epoch):
    batches = [y for _, y in MiniBatches(split(n), size, seed).epoch(epoch)]
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    assert all(len(y) == size for y in batches[:-1])
    assert len(batches) == len(MiniBatches(split(n), size, seed))


@given(n=st.integers(1, 20), size=st.integers(1, 25), done=st.integers(0, 50))
def test_goes_on_from_anywhere(n, size, done):
    def taken(batches: MiniBatches, count: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:
            for _, y in batches:
                found.append(y.tolist())
                if len(found) == count:
                    break
        return found

    whole = taken(MiniBatches(split(n), size, 0), done + 7)
    first = MiniBatches(split(n), size, 0)
    before = taken(first, done)
    second = MiniBatches(split(n), size, 0)
    second.load_state_dict(first.state_dict())
    assert before + taken(second, 7) == whole


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = set()
    for seed in (0, 1):
        for epoch in (0, 1):
            orders.add(tuple(torch.cat([y for _, y in MiniBatches(split(30), 10, seed).epoch(epoch)]).tolist()))
    assert len(orders) == 4


def test_looking_ahead_changes_nothing():
    batches = MiniBatches(split(9), 4, 0)
    next(iter(batches))
    state = batches.state_dict()
    list(batches.epoch(5))
    assert batches.state_dict() == state == {"epoch": 0, "batch": 1}


# ---------------------------------------------------------------------- augmentation


def augmented(**options) -> Digits:
    data = Digits(**{"n_train": 30, "n_test": 20, "batch_size": 12, "augment": [CROP, FLIP], **options})
    data.setup()
    return data


def test_images_are_moved_one_by_one():
    """One image, many times: crops with padding 2 and flips have 50 outcomes."""
    x = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    moved = Augmentation([CROP, FLIP])(x, 0, 0, 0)
    outcomes = moved.unique(dim=0)
    assert 40 < len(outcomes) <= 50
    flipped = moved[:, 0, 4, 3] > moved[:, 0, 4, 4]
    assert 150 < int(flipped.sum()) < 250  # six standard deviations


def test_random_numbers_are_its_own():
    data = augmented()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [x for x, _ in data.mini_batches().epoch(1)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = [x for x, _ in data.mini_batches().epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = [x for x, _ in data.mini_batches().epoch(2)]
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_only_training_batches_are_changed():
    plain, moved = augmented(augment=None), augmented()
    assert torch.equal(torch.cat([x for x, _ in moved.test_dataloader()]), plain.test.x)
    assert torch.equal(moved.train.x, plain.train.x)
    (x, y), (x_plain, y_plain) = next(iter(moved.mini_batches())), next(iter(plain.mini_batches()))
    assert torch.equal(y, y_plain)
    assert not torch.equal(x, x_plain)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": None}, "augment changes mini-batches, but data.batch_size is null"),
        ({"pca": 3}, "augment changes images, but pca = 3"),
        ({"augment": [v2.RandomCrop(6)]}, r"turns samples of shape \(1, 8, 8\) into \(1, 6, 6\)"),
        ({"augment": [v2.RandomCrop(20)]}, "augment cannot be applied to samples of shape"),
    ],
    ids=str,
)
def test_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        augmented(**options)


def test_mini_batches_need_a_size():
    data = augmented(batch_size=None, augment=None)
    with pytest.raises(ConfigError, match=r"set data\.batch_size"):
        data.mini_batches()


# ---------------------------------------------------------------------- standardised channels


def test_channels_have_mean_zero_and_variance_one():
    x = 3.0 + torch.randn(50, 3, 4, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1).double()
    z = standardise(x, channel_statistics(x))
    assert_close(z.mean((0, 2, 3)), torch.zeros(3).double(), scale=1.0)
    assert_close(z.square().mean((0, 2, 3)), torch.ones(3).double())


def test_statistics_are_those_of_the_training_set():
    data = Digits(n_train=40, n_test=20, standardise=True, centre=False, sphere=False)
    data.setup()
    assert_close(data.train.x.mean(), torch.tensor(0.0).double(), scale=1.0)
    assert_close(data.train.x.square().mean(), torch.tensor(1.0).double(), rtol=1e-13)  # a sum of 2560 terms
    assert abs(float(data.test.x.square().mean()) - 1) > 1e-6


def test_constant_channels_are_refused():
    x = torch.randn(5, 2, 3, 3)
    x[:, 1] = 0.5
    with pytest.raises(DataError, match="a channel of the images is constant"):
        channel_statistics(x)
