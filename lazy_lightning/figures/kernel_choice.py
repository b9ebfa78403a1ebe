"""Selection of kernels stored by ``KernelSnapshots`` for figures: those of one network trained with three alphas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.scale import scale_math, scale_words
from lazy_lightning.figures.sweep_table import finished, named_width, of_width, sorted_widths
from lazy_lightning.runs.load import KernelsAccessor, Snapshot


class SelectedKernel(NamedTuple):
    """A kernel at initialisation, or after training with an alpha."""

    name: str
    """Name in plain text, for tables and findings."""
    label: str
    """Label in mathtext."""
    alpha: float
    """The alpha of training, NaN at initialisation."""
    kernel: NDArray[np.float64]
    """The kernel (n, n)."""


class KernelSelection(NamedTuple):
    """Kernels of one network on the same samples."""

    h: float
    seed: int
    labels: NDArray[np.float64]
    """Labels (n,) of the samples."""
    kernels: list[SelectedKernel]
    """The kernel at initialisation, then those after training with the smallest, middle and largest alpha."""

    @property
    def description(self) -> str:
        """Description of the network and the samples, for captions."""
        return f"{named_width(self.h)}, seed {self.seed}, {len(self.labels)} samples"


def chosen_kernels(runs: pd.DataFrame) -> KernelSelection:
    """Returns the kernels of the first seed of the widest network, at the smallest, middle and largest alpha.

    Raises:
        AnalysisError: no kernels are stored, or none is finite and nonzero.
    """
    rows = finished(runs)
    rows = rows[[path == path for path in rows["path"]]] if "path" in rows else rows.iloc[:0]
    kept = KernelsAccessor(rows).load() if len(rows) else {}
    rows = rows.loc[[row for row, snapshot in kept.items() if _usable(snapshot)]]
    if rows.empty:
        raise AnalysisError("no kernels were kept: add callbacks/ntk.yaml with KernelSnapshots to the configuration")
    h = [h for h in sorted_widths(rows) if len(sorted_widths(rows)) == 1 or h == h][-1]
    rows = of_width(rows, h)
    seed = int(rows["seed"].min())
    rows = rows[rows["seed"] == seed].drop_duplicates("alpha", keep="last").sort_values("alpha")
    picked = rows.iloc[sorted({0, (len(rows) - 1) // 2, len(rows) - 1})]
    first = kept[int(picked.index[0])]
    start = SelectedKernel("at initialisation", "at initialisation", float("nan"), _float64(first.start))
    ends = [_after(h, float(alpha), kept[int(row)]) for row, alpha in zip(picked.index, picked["alpha"], strict=True)]
    return KernelSelection(h, seed, _float64(first.labels), [start, *ends])


def _after(h: float, alpha: float, snapshot: Snapshot) -> SelectedKernel:
    return SelectedKernel(
        scale_words(h, alpha, own="alpha"), scale_math(h, alpha, own="alpha", digits=2), alpha, _float64(snapshot.end)
    )


def _usable(snapshot: Snapshot) -> bool:
    """Returns whether both kernels are finite and have a positive diagonal, as images and spectra require."""
    kernels = (snapshot.start, snapshot.end)
    return all(bool(np.isfinite(kernel).all() and (np.diagonal(kernel) > 0).all()) for kernel in kernels)


def _float64(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return array.astype(np.float64)
