"""Draws: what random choices the repeated measurements of a point differ in, and the sentences that state it.

Members of one width and alpha may differ in the seed of the weights, and in the seeds of the data: the training sample
and the teacher. The error of a mean is over independent draws alone, so what a column of measurements is depends on how
the seeds were combined.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.runs.configuration import DATA_SEEDS

WEIGHTS = "seeds of the weights"
BATCHES = "seeds of weights and batches"
BOTH = "seeds of weights and data"
DATA = "training sets"
AVERAGED = "training sets, each averaged over its seeds of the weights"


class Draws(NamedTuple):
    """The independent draw of each row of a table of runs."""

    labels: NDArray[np.int64]
    """The draw of each row, by a seed where one seed identifies it."""
    over: str
    """What an error over these draws is over, such as ``seeds of the weights``."""


def training_sets(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Returns a number for each row (r,), equal for rows with equal seeds of the data, counted from 0.

    >>> training_sets(pd.DataFrame({"seed": [0, 1, 0], "data.train_seed": [5, 5, 3]})).tolist()
    [1, 1, 0]
    """
    seeds = [name for name in DATA_SEEDS if name in rows]
    if not seeds or rows.empty:
        return np.zeros(len(rows), dtype=np.int64)
    return np.asarray(rows.groupby(seeds, sort=True, dropna=False).ngroup(), dtype=np.int64)


def draws(rows: pd.DataFrame) -> Draws:
    """Returns the independent draws of a table of runs.

    With one training set, or a training set of its own for each seed of the weights, a draw is a seed of the weights.
    Where every training set has several seeds of the weights, a draw is a training set, because members with the same
    training set are not independent of each other.

    >>> draws(pd.DataFrame({"seed": [0, 1, 0, 1], "data.train_seed": [0, 0, 7, 7]})).over
    'training sets, each averaged over its seeds of the weights'
    """
    weights, data = rows["seed"].to_numpy(dtype=np.int64), training_sets(rows)
    kinds = len(set(data.tolist()))
    if kinds <= 1:
        orders = rows.get("model.batch_seed")
        return Draws(weights, BATCHES if orders is not None and (orders == "weights").all() else WEIGHTS)
    pairs = len(set(zip(weights.tolist(), data.tolist(), strict=True)))
    if pairs == kinds == len(set(weights.tolist())):
        return Draws(weights, BOTH)
    return Draws(data, DATA if pairs == kinds else AVERAGED)
