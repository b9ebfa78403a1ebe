"""What the finite number of test samples does to test errors: their sampling error, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.analysis import CrossedMean, binomial_error, misclassified, paired_test, with_error
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.draws import draws, training_sets
from lazy_lightning.figures.ensembles import stored_outputs
from lazy_lightning.figures.marks import plain
from lazy_lightning.figures.scale import scale_words
from lazy_lightning.figures.stated_scale import scale_value
from lazy_lightning.figures.sweep_table import WidthCurve, finished, named_width, of_width

_SAMPLES = "data.n_test"


def tested(runs: pd.DataFrame, curves: Sequence[WidthCurve]) -> dict[str, str]:
    """Returns findings on the test samples for the curves of the test error.

    For each width it is the binomial sampling error at the largest alpha, if the number of test samples is known, and
    the difference of the test errors at the smallest and largest alpha, paired over the seeds and test samples that
    they have in common, if the outputs are stored.
    """
    findings = {}
    for curve in curves:
        samples = _samples(of_width(finished(runs), curve.h))
        if samples is not None and len(curve.alpha):
            mean = float(np.nanmean(curve.values[-1])) if curve.counts[-1] else float("nan")
            if mean == mean:
                findings[f"sampling error of the test set, {named_width(curve.h)}"] = (
                    f"{100 * binomial_error(mean, samples):.2g} % (binomial, {samples} samples, at an error of "
                    f"{100 * mean:.3g} %)"
                )
        difference = _ends(runs, curve)
        if difference is not None:
            findings[f"test error, largest minus smallest alpha, {named_width(curve.h)}"] = difference
    return findings


def _samples(rows: pd.DataFrame) -> int | None:
    """Returns the number of test samples, None if it is not known or rows differ in it."""
    if _SAMPLES not in rows:
        return None
    counts = pd.to_numeric(rows[_SAMPLES], errors="coerce").dropna().unique()
    return int(counts[0]) if len(counts) == 1 else None


class PairedDifference(NamedTuple):
    """The test error at one alpha minus that at another."""

    result: CrossedMean
    """The difference with its error over draws and test samples."""
    over: str
    """What the draws are, such as ``seeds of the weights``."""


def paired_difference(rows: pd.DataFrame, alpha: float, other: float) -> PairedDifference | None:
    """Returns the difference of the test errors of two alphas, paired over common draws and test samples.

    Args:
        rows: finished networks of one width.
        alpha: the alpha of the first error.
        other: the alpha of the error that is subtracted.

    Returns:
        None without stored outputs, or if the two have no draw in common.
    """
    found = draws(rows)
    rows = rows.assign(_draw=found.labels, _set=training_sets(rows))
    one, two = (_wrong(rows[rows["alpha"] == value]) for value in (alpha, other))
    common = sorted(one.keys() & two.keys())
    if not common or len({one[draw].shape for draw in common} | {two[draw].shape for draw in common}) > 1:
        return None
    return PairedDifference(paired_test([one[draw] for draw in common], [two[draw] for draw in common]), found.over)


def _ends(runs: pd.DataFrame, curve: WidthCurve) -> str | None:
    """Describes the paired difference of the test errors at both ends of a curve; None without stored outputs."""
    if len(curve.alpha) < 2:
        return None
    low, high = float(curve.alpha[0]), float(curve.alpha[-1])
    found = paired_difference(of_width(finished(runs), curve.h), high, low)
    if found is None:
        return None
    result = found.result
    alphas = f"{scale_words(curve.h, high, own='alpha')} and {plain(scale_value(curve.h, low, own='alpha'))}"
    return (
        f"{with_error(100 * result.mean, 100 * result.error)} %, p = {result.p_value:.2g} "
        f"({alphas}; paired over {result.rows} {found.over} and {result.columns} test samples)"
    )


def _wrong(members: pd.DataFrame) -> dict[int, NDArray[np.float64]]:
    """Returns for each draw the share of its members that misclassify each test sample, (n,)."""
    members = members.drop_duplicates(["seed", "_set"], keep="last").reset_index(drop=True)
    outputs = stored_outputs(members) if len(members) else None
    if outputs is None:
        return {}
    try:
        wrong = misclassified(outputs.outputs, outputs.labels).astype(np.float64)
    except AnalysisError:  # regression targets, or an output that is not finite
        return {}
    return {int(str(draw)): wrong[part.index].mean(axis=0) for draw, part in members.groupby("_draw")}
