"""Measured numbers of the claims on the change of activations by steps of an optimizer, against the width."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lazy_lightning.claims.claim import Measurement
from lazy_lightning.claims.lazy_and_feature import Measure
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.across_widths import AcrossWidths
from lazy_lightning.figures.coordinate_check import activation_changes


def exponents_of_changes(*layers: str) -> Measure:
    """Measures the exponents against h of rms(z_t - z_0) of some layers, after the first step and at the end.

    Args:
        layers: their names; ``F`` is the output. All if none is given.
    """

    def measure(runs: pd.DataFrame) -> list[Measurement]:
        return [
            _exponent(changes.found, layer, changes.name)
            for changes in activation_changes(runs)
            for layer in layers or changes.found
        ]

    return measure


def _exponent(found: Mapping[str, AcrossWidths], layer: str, when: str) -> Measurement:
    law = found[layer].law if layer in found else None
    if law is None:
        raise AnalysisError(f"the change of {layer} {when} is not known at three widths")
    return Measurement(law.slope, law.error, f"{layer} {when}")
