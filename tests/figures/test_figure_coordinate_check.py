"""Coordinate check: the exponents of made sweeps, after one step and at the end, and poor data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import LAYERS, made_sweep

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.coordinate_check import coordinate_check
from lazy_lightning.runs import load_runs

EXPONENTS = dict(zip(LAYERS, (0.0, 0.5, 0.25, -0.5), strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Mini-batch runs with exponents in h of their own at sqrt(h) alpha = 1."""
    made = load_runs(made_sweep(tmp_path_factory.mktemp("check"), scales=(1.0,), arrays=False)).assign(lr=0.1)
    for layer in LAYERS:
        made[f"activation_drift/{layer}"] *= made["h"] ** EXPONENTS[layer]
    return made


def test_slopes_are_those_of_the_sweep(runs: pd.DataFrame) -> None:
    """The output layer is drawn as F, alpha = 1/sqrt(h) times f."""
    found = coordinate_check(runs)
    expected = dict(zip([*LAYERS[:-1], "F"], [*list(EXPONENTS.values())[:-1], EXPONENTS["head"] - 0.5], strict=True))
    end = found.table[found.table["quantity"] == "at the end"]
    for layer, slope in expected.items():
        rows = end[end["layer"] == layer]
        logs = (np.log(rows[name].to_numpy(dtype=np.float64)) for name in ("h", "mean"))
        assert np.polyfit(*logs, 1)[0] == pytest.approx(slope, abs=1e-8)
        assert f"change at the end against h, {layer}" in found.findings
    output = end[end["layer"] == "F"]
    assert output["mean"].to_numpy() == pytest.approx(1 / output["h"].to_numpy(dtype=np.float64), rel=1e-8)


def test_flows_and_few_widths_are_refused(runs: pd.DataFrame, tmp_path: Path) -> None:
    """Each reason names what is missing."""
    with pytest.raises(AnalysisError, match="these members follow a flow"):
        coordinate_check(runs.drop(columns="lr"))
    with pytest.raises(AnalysisError, match="three widths"):
        coordinate_check(runs[runs["h"] > 30])
    drifts = [f"activation_drift/{layer}" for layer in LAYERS]
    with pytest.raises(AnalysisError, match=r"callbacks/activation\.yaml"):
        coordinate_check(runs.drop(columns=drifts))
