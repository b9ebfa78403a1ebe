"""Errors of a network against alpha, compared with those of its linearisation and of frozen activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.marks import Mark, draw_band, draw_seeds, offset_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.scale import ALPHA_LABEL, add_richness_axis, scale_words
from lazy_lightning.figures.stated_scale import states_gamma
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import (
    WidthCurve,
    errors_phrase,
    has,
    named_width,
    seeds_phrase,
    unfinished_note,
    width_curves,
)

STABLE = "activation_stability/total"


class ModelCurve(NamedTuple):
    """One model in one panel."""

    name: str
    curve: WidthCurve
    mark: Mark


_MODELS = {
    "network": "{}/error",
    "linearised, trained as companion": "linearized/{}/error",
    "frozen activations, trained as companion": "frozen_activations/{}/error",
}
_FROZEN_GATES = ("its weights, activations as at $w_0$", "activation_stability/held_error")


def lazy_comparison(runs: pd.DataFrame) -> ReportFigure:
    """Draws train and test error of network, linearisation and frozen activations, and the share of equal gates.

    They are those of the widest network against alpha (arXiv:1812.07956, figure 3).

    Raises:
        AnalysisError: no companion was trained, and no gates were observed.
    """
    if not any(has(runs, name) for name in (_MODELS["linearised, trained as companion"].format("test"), STABLE)):
        raise AnalysisError(
            "the error of the linearisation was not measured: train a MiniBatchModule with companions: [linearized], "
            "or add callbacks/stability.yaml"
        )
    panels = {"train": _lines(runs, "train"), "test": _lines(runs, "test")}
    stable = _stable(runs)
    with paper_style():
        figure = Figure(figsize=(3.0 * (len(panels) + bool(stable)), 3.4))
        axes = figure.subplots(1, len(panels) + bool(stable), squeeze=False)[0]
        for axis, (name, lines) in zip(axes, panels.items(), strict=False):
            _draw(axis, lines, 100.0)
            axis.set_ylabel(f"{name} error (%)")
        if stable:
            _draw(axes[-1], stable, 100.0)
            axes[-1].set_ylabel("ReLUs and pools as at $w_0$ (%)")
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    curve = panels["test"][0].curve
    caption = (
        f"Lazy training, {named_width(curve.h)}: mean of {seeds_phrase([curve])} ({errors_phrase([curve])})."
        f"{unfinished_note(runs)}"
    )
    shown = [(kind, line) for kind, part in {**panels, "stable": stable}.items() for line in part]
    return ReportFigure(
        "lazy_comparison", "Lazy and not", caption, figure, _table(shown), _findings(panels["test"], stable)
    )


def _lines(runs: pd.DataFrame, part: str) -> list[ModelCurve]:
    names = {name: column.format(part) for name, column in _MODELS.items()}
    if part == "test":
        names |= dict([_FROZEN_GATES])
    marks = offset_marks(len(_MODELS) + 1, 0)
    return [
        ModelCurve(name, width_curves(runs, column)[-1], mark)
        for (name, column), mark in zip(names.items(), marks, strict=False)
        if has(runs, column)
    ]


def _stable(runs: pd.DataFrame) -> list[ModelCurve]:
    if not has(runs, STABLE):
        return []
    return [ModelCurve("all", width_curves(runs, STABLE)[-1], offset_marks(1, 0)[0])]


def _draw(axis: Axes, lines: list[ModelCurve], factor: float) -> None:
    for line in lines:
        draw_seeds(axis, line.curve.alpha, factor * line.curve.values, line.mark)
        draw_band(axis, line.curve.alpha, line.curve.band(factor), line.mark, line.name)
    axis.set(xlabel=ALPHA_LABEL, xscale="log")
    if states_gamma() and lines[0].curve.h == lines[0].curve.h:
        add_richness_axis(axis, lines[0].curve.h)
    if factor * max(float(np.nanmax(line.curve.values)) for line in lines) < 1.0:
        axis.set_ylim(-0.05, 1.0)  # if all errors are zero, matplotlib would centre the axis at zero


def _table(lines: list[tuple[str, ModelCurve]]) -> pd.DataFrame:
    parts = [line.curve.long(part=part, model=line.name, **line.curve.band()._asdict()) for part, line in lines]
    return pd.concat(parts, ignore_index=True)


def _findings(test: list[ModelCurve], stable: list[ModelCurve]) -> dict[str, str]:
    findings = {}
    for line in test:
        mean = 100 * line.curve.band().mean
        best, worst = int(np.nanargmin(mean)), len(mean) - 1
        findings[f"test error, {line.name}"] = (
            f"{mean[best]:.3g} % at best ({_at(line, best)}), {mean[worst]:.3g} % at {_at(line, worst)}"
        )
    for line in stable:
        mean = 100 * line.curve.band().mean
        findings["stable activations"] = f"{mean[0]:.3g} % at {_at(line, 0)}, {mean[-1]:.4g} % at {_at(line, -1)}"
    return findings


def _at(line: ModelCurve, point: int) -> str:
    return scale_words(line.curve.h, float(line.curve.alpha[point]), own="alpha")
