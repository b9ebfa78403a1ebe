"""Measured numbers of the claims on the scale of initialisation of two-layer students, paired over trials."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.cost_of_laziness import at_alpha
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.best_in_training import trained_losses
from lazy_lightning.figures.quantity import POPULATION


def best_lazy_over_last_feature(lazy: float, feature: float) -> Measure:
    """Measures log10 of the least population loss in training at one alpha over the last one at a smaller alpha."""

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        found = trained_losses(runs, POPULATION)
        if len(found) > 1:
            raise AnalysisError(f"the runs have {len(found)} widths, expected students of one width")
        (losses,) = found
        ratios = at_alpha(losses.best, lazy) / at_alpha(losses.end, feature)
        return [Measurement.mean(np.log10(ratios))]

    return measure
