"""Errors of the average output of all seeds of a point, which may be in several runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import ensemble_statistics
from lazy_lightning.errors import AnalysisError, DataError
from lazy_lightning.figures.draws import training_sets
from lazy_lightning.figures.sweep_table import WidthCurve, finished, of_width
from lazy_lightning.runs.load import MemberOutputs

REPORTED_COLUMN = "run/test/ensemble_error"


def ensemble_curve(runs: pd.DataFrame, h: float) -> WidthCurve | None:
    """Returns the test error of the ensemble average against alpha for networks of one width; None if unknown.

    It is computed from the members' outputs, or else taken from the run's column if all seeds of a point were in one
    run. ``values`` is (k, 1), and ``seeds`` is empty, because an ensemble has no seed. Points with one seed are left
    out. An ensemble is of one training set; with several of them, the mean over these is returned.
    """
    rows = of_width(finished(runs), h).sort_values(["alpha", "seed"], kind="stable")
    outputs = stored_outputs(rows)
    alphas, errors = [], []
    for alpha, members in rows.assign(_position=np.arange(len(rows)), _set=training_sets(rows)).groupby("alpha"):
        ensembles = [part for _, part in members.groupby("_set") if len(part) > 1]
        if ensembles:
            alphas.append(float(str(alpha)))
            errors.append(float(np.mean([_error(part, outputs) for part in ensembles])))
    curve = WidthCurve(h, np.array(alphas), np.array(errors, dtype=np.float64).reshape(-1, 1), ())
    return curve if np.isfinite(curve.values).any() else None


def _error(members: pd.DataFrame, outputs: MemberOutputs | None) -> float:
    if outputs is not None:
        try:
            return ensemble_statistics(outputs.outputs[members["_position"]], outputs.labels).ensemble_error
        except AnalysisError:  # the labels are not classes, or a member has an output that is not finite
            pass
    return _reported_error(members)


def stored_outputs(rows: pd.DataFrame) -> MemberOutputs | None:
    """Returns the outputs of the rows, or None if some are not stored or have different samples."""
    try:
        return rows.outputs.load("test")  # type: ignore[no-any-return]
    except (AttributeError, DataError):  # a table that was not loaded from runs has no outputs
        return None


def _reported_error(members: pd.DataFrame) -> float:
    if REPORTED_COLUMN not in members or members["run"].nunique() > 1:
        return float("nan")
    errors: NDArray[np.float64] = pd.to_numeric(members[REPORTED_COLUMN], errors="coerce").to_numpy(dtype=np.float64)
    return float(errors[0])
