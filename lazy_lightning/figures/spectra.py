"""Eigenvalues of the tangent kernel before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.figures.kernel_choice import KernelSelection, SelectedKernel, chosen_kernels
from lazy_lightning.figures.marks import alpha_marks, log_axes
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import unfinished_note


class Spectrum(NamedTuple):
    """The eigenvalues of one kernel."""

    shown: SelectedKernel
    values: NDArray[np.float64]
    """lambda_i/trace (n,) in descending order."""
    trace: float

    @property
    def effective_rank(self) -> float:
        """The effective rank (sum lambda)^2/sum lambda^2, between 1 and n."""
        return float(1 / (self.values**2).sum())


def spectra(runs: pd.DataFrame) -> ReportFigure:
    """Draws lambda_i/sum lambda against i for the same kernels as ``kernel_images``.

    Eigenvalues below n eps lambda_1, which are only rounding errors, are not drawn.

    Raises:
        AnalysisError: no kernels are stored.
    """
    choice = chosen_kernels(runs)
    found = [spectrum(shown) for shown in choice.kernels]
    with paper_style():
        figure = Figure(figsize=(4.2, 3.2))
        _draw(figure.subplots(), found)
    start = found[0]
    growth = ", ".join(f"{s.trace / start.trace:.3g} ({s.shown.name})" for s in found[1:])
    caption = (
        f"Eigenvalues of the tangent kernel over their sum, {choice.description}, before and after training with the "
        f"smallest, middle and largest alpha whose kernels were kept. The sum itself has grown by the factors {growth}."
        + unfinished_note(runs)
    )
    findings = {f"effective rank of the kernel, {s.shown.name}": f"{s.effective_rank:.3g}" for s in found}
    return ReportFigure("spectra", "Spectra of the tangent kernels", caption, figure, _table(choice, found), findings)


def spectrum(shown: SelectedKernel) -> Spectrum:
    """Returns the eigenvalues of a symmetric kernel, divided by their sum."""
    values = np.linalg.eigvalsh(shown.kernel)[::-1].astype(np.float64)
    trace = float(np.trace(shown.kernel))
    return Spectrum(shown, values / trace, trace)


def resolved(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which eigenvalues (n,), in descending order, exceed the rounding errors.

    >>> resolved(np.array([1.0, 1e-3, 1e-17, -1e-16]))
    array([ True,  True, False, False])
    """
    significant: NDArray[np.bool_] = values > len(values) * np.finfo(np.float64).eps * values[0]
    return significant


def _draw(axis: Axes, found: Sequence[Spectrum]) -> None:
    marks = alpha_marks([s.shown.alpha for s in found[1:]])
    for s in found[1:]:
        mark = marks[s.shown.alpha]
        kept = resolved(s.values)
        rank = np.arange(1, len(s.values) + 1)[kept]
        axis.plot(rank, s.values[kept], **mark.line_style, markevery=0.1, label=f"after, {s.shown.label}")
    start = found[0].values[resolved(found[0].values)]
    axis.plot(np.arange(1, len(start) + 1), start, "--", color="black", lw=1.0, label=found[0].shown.label)
    log_axes(axis)
    axis.set_xlabel("rank $i$")
    axis.set_ylabel(r"$\lambda_i \,/\, \mathrm{tr}\,\Theta$")
    axis.legend()


def _table(choice: KernelSelection, found: Sequence[Spectrum]) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "h": choice.h,
                    "seed": choice.seed,
                    "kernel": s.shown.name,
                    "alpha": s.shown.alpha,
                    "sqrt_h_alpha": np.sqrt(choice.h) * s.shown.alpha,
                    "rank": np.arange(1, len(s.values) + 1),
                    "eigenvalue_over_trace": s.values,
                    "trace": s.trace,
                    "drawn": resolved(s.values),
                }
            )
            for s in found
        ],
        ignore_index=True,
    )
