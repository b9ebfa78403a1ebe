"""Online training: each step has samples of its own, and an interrupted epoch goes on with the same ones."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close

from lazy_lightning.data import HermiteRegression, Stripe, TeacherStudent
from lazy_lightning.errors import ConfigError

TASKS = [HermiteRegression, Stripe, TeacherStudent]


def made(task, **options):
    data = task(**{"d": 3, "n_train": 7, "n_test": 20, "batch_size": 3, "online": True, **options})
    data.setup()
    return data


@pytest.mark.parametrize("task", TASKS)
def test_no_sample_is_used_twice_and_none_is_of_the_training_set(task) -> None:
    data = made(task, n_train=40)
    batches = [*data.mini_batches().epoch(0), *data.mini_batches().epoch(1)]
    rows = torch.cat([data.train.x, data.test.x, *(x for x, _ in batches)])
    assert len(rows.unique(dim=0)) == len(rows) == 40 + 20 + 80


@pytest.mark.parametrize("task", [HermiteRegression, TeacherStudent])
def test_targets_are_the_teachers(task) -> None:
    data = made(task)
    for x, y in data.mini_batches().epoch(3):
        assert_close(y, data.teacher(x), rtol=1e-12)


def test_an_interrupted_epoch_goes_on_with_the_same_samples() -> None:
    whole = [x for x, _ in made(Stripe).mini_batches().epoch(0)]
    loader = made(Stripe).mini_batches()
    next(iter(loader))
    again = made(Stripe).mini_batches()
    again.load_state_dict(loader.state_dict())
    assert [len(x) for x in whole] == [3, 3, 1]
    assert all(torch.equal(a, b) for a, (b, _) in zip(whole[1:], again, strict=True))
    other = made(Stripe, train_seed=1).mini_batches()
    assert not torch.equal(next(iter(other))[0], whole[0])


def test_flow_of_samples_that_change_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set data\.batch_size"):
        Stripe(d=3, n_train=7, n_test=5, online=True)
