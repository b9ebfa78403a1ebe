"""The measure of performance on the test set: the error, or the loss if there is no error."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from lazy_lightning.figures.sweep_table import has


class Quantity(NamedTuple):
    """A column with its name, label, factor and unit in figures."""

    column: str
    name: str
    label: str
    factor: float
    unit: str


ERROR = Quantity("test/error", "test error", "test error (%)", 100.0, " %")
POPULATION = Quantity("population/loss", "population loss", r"population loss $\ell(F, y)$", 1.0, "")
LOSS = Quantity("test/loss", "test loss", r"test loss $\ell(F, y)$", 1.0, "")


def performance(runs: pd.DataFrame) -> Quantity:
    """Returns the test error, or the test loss for tasks without errors."""
    return ERROR if has(runs, ERROR.column) else LOSS
