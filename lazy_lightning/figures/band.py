"""Band, a curve with its error for a figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Band(NamedTuple):
    """A mean over seeds and the ends of an interval of one standard error, (k,) each; NaN ends for one seed.

    The error is widened for few seeds, see :func:`~lazy_lightning.analysis.seeds.mean_and_error`.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
