"""Measured numbers of the claims on the spectrum of the tangent kernel on images and on noise, paired over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lazy_lightning.claims.claim import Measurement
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.image_spectra import LARGEST, input_spectra

FIRST_RANK, LAST_RANK = 5, 200
"""The ranks between which the spectrum of 495 images is near a power law, beyond the largest eigenvalues."""


def exponent_on_images_minus_noise(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the exponent of lambda_i in the rank i on images minus that on noise.

    It is the mean over seeds of the exponent of the ratio of the two, of networks with the same weights. Its error is
    that over seeds alone: neighbouring eigenvalues are not independent, so the scatter around a fit tells nothing.
    """
    images, noise = input_spectra(runs)
    if images.seeds != noise.seeds or len(images.values) < LAST_RANK:
        raise AnalysisError(
            f"kernels of the seeds {list(images.seeds)} on {len(images.values)} images and of the seeds "
            f"{list(noise.seeds)} on noise were kept, expected the same seeds, and {LAST_RANK} inputs at least"
        )
    ranks = np.arange(FIRST_RANK, LAST_RANK + 1)
    ratios = np.log(images.values[ranks - 1] / noise.values[ranks - 1])
    exponents, _ = np.polyfit(np.log(ranks), ratios, 1)
    return [Measurement.mean(exponents)]


def largest_eigenvalue(runs: pd.DataFrame) -> list[Measurement]:
    """Measures the largest eigenvalue over the trace, on images and on noise."""
    return [Measurement.mean(spectra.measures()[LARGEST], spectra.name) for spectra in input_spectra(runs)]
