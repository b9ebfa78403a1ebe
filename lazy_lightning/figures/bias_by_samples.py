"""Bias and variance of the trained function against the number n of training samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.analysis import BiasVariance, bias_variance
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.draws import training_sets
from lazy_lightning.figures.ensembles import stored_outputs
from lazy_lightning.figures.error_by_samples import SAMPLES, common_alphas
from lazy_lightning.figures.layers import tick_widths
from lazy_lightning.figures.marks import legend_above, offset_marks, plain
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import scale_math, scale_words
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    finished,
    named_width,
    of_width,
    sorted_widths,
    unfinished_note,
)

_PARTS = {"bias2": "bias$^2$", "data": "variance over data", "of_weights": "variance over weights"}
_NAMES = {"bias2": "squared bias", "data": "variance over data", "of_weights": "variance over weights"}


def bias_by_samples(runs: pd.DataFrame) -> ReportFigure:
    """Draws the parts of the mean squared error of F against n, at the smallest and largest alpha of each width.

    The variance over weights is what an average over seeds of the weights removes; the variance over data and the bias
    are what an infinite ensemble has.

    Raises:
        AnalysisError: outputs are not stored, or no point has two training sets with the same two seeds of the weights.
    """
    table = _table(runs)
    panels = _panels(table)
    with paper_style():
        figure = Figure(figsize=(2.7 * max(len(panels), 1.5), 3.1))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, ((h, alpha), rows) in zip(axes, panels, strict=True):
            _draw(axis, rows)
            axis.set_title(f"{named_width(h)}, {scale_math(h, alpha)}")
        axes[0].set_ylabel(r"$(F - y)^2$, mean over test samples")
        legend_above(figure, axes[0], columns=3)
    sets, seeds = (sorted(set(table[name].tolist())) for name in ("training_sets", "seeds"))
    caption = (
        f"Parts of the mean squared error of F, from {_counts(sets)} training sets with the same {_counts(seeds)} "
        "seeds of the weights each (unbiased estimates; those below 0 are not drawn). The variance over weights is "
        f"what an ensemble removes.{unfinished_note(runs)}"
    )
    return ReportFigure(
        "bias_by_samples", "Bias and variance by training samples", caption, figure, table, _findings(table)
    )


def _table(runs: pd.DataFrame) -> pd.DataFrame:
    rows = finished(runs)
    points = []
    for h in sorted_widths(rows):
        of_h = of_width(rows, h)
        for alpha in common_alphas(of_h):
            for n, members in of_h[of_h["alpha"] == alpha].groupby(SAMPLES, sort=True):
                found = _parts(members)
                if found is not None:
                    parts, sets, seeds = found
                    who = {"h": h, "alpha": alpha, "n": float(str(n)), "training_sets": sets, "seeds": seeds}
                    points.append({**who, **parts._asdict(), "of_weights": parts.of_weights, "error": parts.error})
    if not points:
        raise AnalysisError(
            "no point has outputs of two training sets with the same two seeds of the weights: train with "
            "--model.seeds=2 --model.data_seeds=2 or more, and real targets or labels +1 and -1"
        )
    return pd.DataFrame(points)


def _parts(members: pd.DataFrame) -> tuple[BiasVariance, int, int] | None:
    """Returns the decomposition of the members of a point and their numbers of sets and seeds; None if not crossed."""
    members = members.assign(_set=training_sets(members)).drop_duplicates(["_set", "seed"], keep="last")
    members = members.sort_values(["_set", "seed"], kind="stable").reset_index(drop=True)
    sets, seeds = members["_set"].nunique(), members["seed"].nunique()
    outputs = stored_outputs(members) if len(members) == sets * seeds else None
    if outputs is None or outputs.labels.dtype.kind != "f":
        return None
    F = np.asarray(outputs.outputs, dtype=np.float64)
    try:
        return bias_variance(F.reshape(sets, seeds, *F.shape[1:]), outputs.labels), sets, seeds
    except AnalysisError:
        return None


def _panels(table: pd.DataFrame) -> list[tuple[tuple[float, float], pd.DataFrame]]:
    """Returns the rows of each width and alpha."""
    groups = table.groupby(["h", "alpha"], dropna=False, sort=True)
    return [((float(rows["h"].iloc[0]), float(rows["alpha"].iloc[0])), rows) for _, rows in groups]


def _draw(axis: Axes, rows: pd.DataFrame) -> None:
    for (part, label), mark in zip(_PARTS.items(), offset_marks(len(_PARTS), 0), strict=True):
        shown = rows[rows[part] > 0]
        axis.plot(shown["n"], shown[part], **mark.line_style, label=label)
    axis.set(xscale="log", yscale="log")
    tick_widths(axis, rows["n"].tolist())
    axis.set_xlabel("training samples $n$")


def _findings(table: pd.DataFrame) -> dict[str, str]:
    findings = {}
    for (h, alpha), rows in _panels(table):
        last = rows.sort_values("n").iloc[-1]
        parts = ", ".join(f"{name} {last[part]:.3g}" for part, name in _NAMES.items())
        findings[f"parts of the error at n = {plain(float(last['n']))}, {named_width(h)}, {scale_words(h, alpha)}"] = (
            parts
        )
    return findings


def _counts(values: list[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
