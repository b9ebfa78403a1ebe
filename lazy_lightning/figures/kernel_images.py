"""Images of the tangent kernel before and after training, in which features that separate classes appear as blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.figures.kernel_choice import KernelSelection, chosen_kernels
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import unfinished_note

Correlations = NDArray[np.float64]
Order = NDArray[np.intp]

_MOST_SAMPLES = 200
"""Largest number of samples in a panel."""
_MOST_CLASSES = 12
_CLIPPED = (1.0, 99.0)
"""Percentiles of all correlations between different samples at the ends of the colour scale."""


def kernel_images(runs: pd.DataFrame) -> ReportFigure:
    """Draws Theta(x, x')/(Theta(x, x) Theta(x', x'))^(1/2) with samples sorted by class, on one colour scale.

    Raises:
        AnalysisError: no kernels are stored.
    """
    choice = chosen_kernels(runs)
    correlations = {shown.name: correlation(shown.kernel) for shown in choice.kernels}
    order = class_order(choice.kernels[0].kernel, choice.labels)
    with paper_style():
        figure = _draw(choice, [c[np.ix_(order, order)] for c in correlations.values()], choice.labels[order])
    clipped = " to ".join(f"{end:g}" for end in _CLIPPED)
    fewer = f" {len(order)} of the samples are shown." if len(order) < len(choice.labels) else ""
    caption = (
        f"Tangent kernel as correlations between samples, {choice.description}, before and after training with the "
        "smallest, middle and largest alpha whose kernels were kept. Samples are sorted by class (lines), and within a "
        f"class along the first principal axis of the initial kernel.{fewer} Colours span percentiles {clipped} of "
        "all panels." + unfinished_note(runs)
    )
    findings = {f"mean correlation, {name}": _contrast(c, choice.labels) for name, c in correlations.items()}
    findings = {name: description for name, description in findings.items() if description}
    table = _table(choice, correlations, order)
    return ReportFigure("kernel_images", "Tangent kernels before and after training", caption, figure, table, findings)


def correlation(kernel: NDArray[np.float64]) -> Correlations:
    """Returns the correlations K_ij/(K_ii K_jj)^(1/2) of a kernel.

    >>> correlation(np.array([[4.0, 1.0], [1.0, 1.0]]))
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    size = np.sqrt(np.diagonal(kernel))
    correlations: Correlations = kernel / np.outer(size, size)
    return correlations


def class_order(kernel: NDArray[np.float64], labels: NDArray[np.float64]) -> Order:
    """Returns the order of the samples by class and along the first principal axis of each class's block.

    If there are many samples, only every k-th is included.
    """
    parts = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        block = kernel[np.ix_(members, members)]
        centred = block - block.mean(axis=0) - block.mean(axis=1)[:, None] + block.mean()
        axis = np.linalg.eigh(centred)[1][:, -1]
        parts.append(members[np.argsort(axis * np.sign(axis[np.abs(axis).argmax()]), kind="stable")])
    order = np.concatenate(parts)
    kept: Order = order[:: -(-len(order) // _MOST_SAMPLES)]
    return kept


def _draw(choice: KernelSelection, images: Sequence[Correlations], labels: NDArray[np.float64]) -> Figure:
    figure = Figure(figsize=(2.3 * len(images) + 0.8, 2.8))
    axes: list[Axes] = list(figure.subplots(1, len(images), squeeze=False)[0])
    between = np.concatenate([image[~np.eye(len(image), dtype=bool)] for image in images])
    low, high = np.percentile(between, _CLIPPED) if len(between) else (0.0, 1.0)
    high = max(high, low + 1e-6)  # all pairs may have the same correlation
    for axis, shown, image in zip(axes, choice.kernels, images, strict=True):
        picture = axis.imshow(image, cmap="cividis", vmin=low, vmax=high, interpolation="nearest", rasterized=True)
        axis.set_title(shown.label if shown.alpha != shown.alpha else f"after, {shown.label}")
        axis.grid(visible=False)
        _mark_classes(axis, labels, named=axis is axes[0])
    axes[0].set_ylabel("class")
    figure.colorbar(picture, ax=axes, label="correlation", extend="both", shrink=0.85, pad=0.015)
    return figure


def _mark_classes(axis: Axes, labels: NDArray[np.float64], named: bool) -> None:
    """Draws lines between classes, and their names unless there are too many."""
    names, starts, counts = np.unique(labels, return_index=True, return_counts=True)
    axis.set_xticks([])
    axis.set_yticks([])
    if 1 < len(names) <= _MOST_CLASSES:
        for start in starts[1:]:
            axis.axhline(start - 0.5, color="white", lw=0.8)
            axis.axvline(start - 0.5, color="white", lw=0.8)
        middles = starts + (counts - 1) / 2
        description = [f"{name:g}".replace("-", "\N{MINUS SIGN}") for name in names]
        axis.set_xticks(middles, description)
        axis.set_yticks(middles, description if named else [""] * len(description))
        axis.tick_params(length=0)


def _contrast(correlations: Correlations, labels: NDArray[np.float64]) -> str:
    """Describes the mean correlation of different samples within and between classes; empty without classes."""
    same = labels[:, None] == labels[None, :]
    different = ~np.eye(len(labels), dtype=bool)
    if not (same & different).any() or same.all():
        return ""
    within, between = (correlations[pairs].mean() for pairs in (same & different, ~same))
    return f"{within:.3f} within classes, {between:.3f} between"


def _table(choice: KernelSelection, correlations: dict[str, Correlations], order: Order) -> pd.DataFrame:
    """Returns the upper triangle of the correlations, because they are symmetric."""
    row, column = np.triu_indices(len(order))
    i, j = order[row], order[column]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "h": choice.h,
                    "seed": choice.seed,
                    "kernel": shown.name,
                    "alpha": shown.alpha,
                    "sqrt_h_alpha": np.sqrt(choice.h) * shown.alpha,
                    "row": row,
                    "column": column,
                    "row_label": choice.labels[i],
                    "column_label": choice.labels[j],
                    "correlation": correlations[shown.name][i, j],
                }
            )
            for shown in choice.kernels
        ],
        ignore_index=True,
    )
