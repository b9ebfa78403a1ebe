"""What tells how well a network does on the test set: its error, or its loss where there is no error."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from lazy_lightning.figures.sweep_table import has


class Quantity(NamedTuple):
    """A column, and how it is shown."""

    column: str
    name: str
    label: str
    factor: float
    unit: str


ERROR = Quantity("test/error", "test error", "test error (%)", 100.0, " %")
LOSS = Quantity("test/loss", "test loss", r"test loss $\ell(F, y)$", 1.0, "")


def performance(runs: pd.DataFrame) -> Quantity:
    """The test error, or the test loss of tasks that have no errors."""
    return ERROR if has(runs, ERROR.column) else LOSS
