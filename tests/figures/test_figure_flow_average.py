"""Averages of curves over draws: members with one training set are one draw; captions state what errors are over."""

import numpy as np
import pandas as pd
import pytest

from lazy_lightning.analysis import mean_and_error
from lazy_lightning.figures.draws import AVERAGED, BOTH, WEIGHTS, Draws
from lazy_lightning.figures.flow_average import Followed, averaged, error_over, mean_words

T = np.array([1.0, 4.0, 16.0])


def test_members_of_one_training_set_are_averaged_before_the_error():
    values = [np.array([0.0, 1.0, level]) for level in (1.0, 3.0, 10.0, 12.0)]
    drawn = Draws(np.array([5, 5, 8, 8]), AVERAGED)
    curve = averaged([(T, y) for y in values], drawn)
    mean, error = mean_and_error(np.array([[2.0, 11.0]]))
    assert (curve.seeds, curve.over) == (2, AVERAGED)
    assert curve.band.mean[-1] == pytest.approx(mean[0], rel=1e-12)
    assert curve.band.high[-1] - curve.band.mean[-1] == pytest.approx(error[0], rel=1e-12)
    assert mean_words([curve]) == f"mean and standard error over 2 {AVERAGED}, widened by Student's t"
    alone = averaged([(T, y) for y in values])
    assert (alone.seeds, alone.over) == (4, WEIGHTS)


@pytest.mark.parametrize(
    ("train_seeds", "draws", "over"),
    [([3, 3, 3, 3], 4, WEIGHTS), ([0, 1, 2, 3], 4, BOTH), ([7, 7, 9, 9], 2, AVERAGED)],
)
def test_draws_follow_from_the_table_of_runs(train_seeds, draws, over):
    seeds = [0, 1, 2, 3] if over != AVERAGED else [0, 1, 0, 1]
    members = pd.DataFrame({"id": list("abcd"), "alpha": 1.0, "seed": seeds, "data.train_seed": train_seeds})
    curves = pd.DataFrame({"id": np.repeat(list("abcd"), 3), "alpha": 1.0, "t": np.tile(T, 4), "loss": np.arange(12.0)})
    curve = Followed(100.0, members, curves, [1.0]).average(1.0, "loss")
    assert curve is not None
    assert (curve.seeds, curve.over) == (draws, over)


def test_one_member_has_no_error():
    curve = averaged([(T, T)])
    assert mean_words([curve]) == "one member each, without an error"
    assert error_over([1], [WEIGHTS]) == "one member, without an error"
    assert error_over([2, 3], [WEIGHTS]) == "standard error over 2 to 3 seeds of the weights, widened by Student's t"
