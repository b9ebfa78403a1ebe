"""Which of the kernels kept by ``KernelSnapshots`` are shown: of one network, trained with three alphas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.marks import number, plain
from lazy_lightning.figures.sweep_table import finished, named_width, of_width, sorted_widths
from lazy_lightning.runs.load import KernelsAccessor, Snapshot


class SelectedKernel(NamedTuple):
    """A kernel at initialisation, or after training with an alpha."""

    name: str
    """In plain words, as tables and findings have it."""
    label: str
    """With mathtext."""
    alpha: float
    """NaN at initialisation."""
    kernel: NDArray[np.float64]
    """(n, n)."""


class KernelSelection(NamedTuple):
    """Kernels of one network on the same samples."""

    h: float
    seed: int
    labels: NDArray[np.float64]
    """(n,)."""
    kernels: list[SelectedKernel]
    """At initialisation, then after training with the smallest, middle and largest alpha."""

    @property
    def description(self) -> str:
        """Whose they are."""
        return f"{named_width(self.h)}, seed {self.seed}, {len(self.labels)} samples"


def chosen_kernels(runs: pd.DataFrame) -> KernelSelection:
    """Of the widest network with kernels, the first seed; the smallest, the middle and the largest alpha.

    Raises:
        AnalysisError: no kernels were kept, or none that is finite and not zero.
    """
    rows = finished(runs)
    rows = rows[[path == path for path in rows["path"]]] if "path" in rows else rows.iloc[:0]
    kept = KernelsAccessor(rows).load() if len(rows) else {}
    rows = rows.loc[[row for row, snapshot in kept.items() if _usable(snapshot)]]
    if rows.empty:
        raise AnalysisError("no kernels were kept: add callbacks/ntk.yaml to the configuration, it has KernelSnapshots")
    h = [h for h in sorted_widths(rows) if len(sorted_widths(rows)) == 1 or h == h][-1]
    rows = of_width(rows, h)
    seed = int(rows["seed"].min())
    rows = rows[rows["seed"] == seed].drop_duplicates("alpha", keep="last").sort_values("alpha")
    picked = rows.iloc[sorted({0, (len(rows) - 1) // 2, len(rows) - 1})]
    first = kept[int(picked.index[0])]
    start = SelectedKernel("at initialisation", "at initialisation", float("nan"), _float64(first.start))
    ends = [_after(float(alpha), kept[int(row)]) for row, alpha in zip(picked.index, picked["alpha"], strict=True)]
    return KernelSelection(h, seed, _float64(first.labels), [start, *ends])


def _after(alpha: float, snapshot: Snapshot) -> SelectedKernel:
    return SelectedKernel(f"alpha = {plain(alpha)}", rf"$\alpha = {number(alpha)}$", alpha, _float64(snapshot.end))


def _usable(snapshot: Snapshot) -> bool:
    """A kernel that is not finite, or zero somewhere on its diagonal, has neither picture nor spectrum."""
    kernels = (snapshot.start, snapshot.end)
    return all(bool(np.isfinite(kernel).all() and (np.diagonal(kernel) > 0).all()) for kernel in kernels)


def _float64(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return array.astype(np.float64)
