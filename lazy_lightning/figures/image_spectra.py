"""Spectra of the tangent kernel at initialisation on images and on noise of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazy_lightning.analysis import mean_and_error, with_error
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.band import Band
from lazy_lightning.figures.marks import draw_band, log_axes, offset_marks
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.spectra import resolved
from lazy_lightning.figures.style import paper_style
from lazy_lightning.figures.sweep_table import counted_seeds, finished, named_width, of_width, sorted_widths
from lazy_lightning.runs.load import KernelsAccessor

PIXELS = "data.random_pixels"
"""The key that replaces images by noise."""
_SHARE = 0.9
LARGEST = "largest eigenvalue over the trace"
"""Name of a number in :meth:`InputSpectra.measures`."""


class InputSpectra(NamedTuple):
    """The spectra of some networks on one kind of inputs."""

    name: str
    """``images`` or ``noise``."""
    values: NDArray[np.float64]
    """Eigenvalues over the trace (n, s), in descending order, for each seed; NaN where they are rounding errors."""
    seeds: tuple[int, ...]
    """The seeds of the weights (s,), in ascending order."""

    def band(self) -> Band:
        """Returns the geometric mean over the seeds for which an eigenvalue is resolved, and its error."""
        mean, error = mean_and_error(np.log(self.values))
        with np.errstate(over="ignore"):  # the error of two seeds may exceed all numbers, which draws no band
            return Band(np.exp(mean), np.exp(mean - error), np.exp(mean + error))

    def measures(self) -> dict[str, NDArray[np.float64]]:
        """Returns numbers (s,) that describe the spectrum of each seed, by name."""
        shares = np.nan_to_num(self.values)
        least = np.nanmin(self.values, axis=0)
        return {
            "effective rank": 1 / (shares**2).sum(axis=0),
            LARGEST: shares[0],
            f"eigenvalues that make {_SHARE:.0%} of the trace": 1.0 + (shares.cumsum(axis=0) < _SHARE).sum(axis=0),
            "condition number": shares[0] / least,
        }


def image_spectra(runs: pd.DataFrame) -> ReportFigure:
    """Draws lambda_i/sum lambda against i at initialisation, on images and on noise (arXiv:1812.07956, appendix).

    The kernels are those of ``KernelSnapshots``, of the widest networks, summed over outputs. Eigenvalues below
    n eps lambda_1, which are only rounding errors, are not drawn.

    Raises:
        AnalysisError: no kernels are stored on one of the two, or on another number of samples.
    """
    h = sorted_widths(finished(runs))[-1]
    found = input_spectra(runs)
    with paper_style():
        figure = Figure(figsize=(4.4, 3.4))
        _draw(figure.subplots(), found)
    counts = [spectra.values.shape[1] for spectra in found]
    caption = (
        f"Eigenvalues of the tangent kernel at initialisation over their sum, {named_width(h)}, on "
        f"{len(found[0].values)} images and on as many of independent uniform pixels, both preprocessed alike. The "
        f"kernel is summed over outputs. Geometric means of {counted_seeds(counts)} (bands: standard error over seeds "
        "of the weights, widened by Student's t)."
    )
    title = "Spectra of the tangent kernel on images and on noise"
    return ReportFigure("image_spectra", title, caption, figure, _table(found, h), _findings(found))


def input_spectra(runs: pd.DataFrame) -> tuple[InputSpectra, InputSpectra]:
    """Returns the spectra of the widest networks on images and on noise, in this order, with the seeds ascending.

    Raises:
        AnalysisError: no kernels are stored on one of the two, or on another number of samples.
    """
    rows = finished(runs)
    rows = of_width(rows, sorted_widths(rows)[-1])
    noise = rows.get(PIXELS, pd.Series(False, index=rows.index)).map(lambda value: value in (True, "true"))
    images, pixels = _spectra("images", rows[~noise]), _spectra("noise", rows[noise])
    if len(images.values) != len(pixels.values):
        raise AnalysisError(
            f"kernels were kept on {len(images.values)} images and on {len(pixels.values)} of noise, expected "
            "equal numbers: sweep data.random_pixels with one configuration"
        )
    return images, pixels


def _spectra(name: str, rows: pd.DataFrame) -> InputSpectra:
    rows = rows[rows["path"].notna()].drop_duplicates("seed", keep="last").sort_values("seed")
    kept = KernelsAccessor(rows).load() if len(rows) else {}
    chosen = [label for label, snapshot in kept.items() if np.isfinite(snapshot.start).all()]
    kernels = [kept[label].start.astype(np.float64) for label in chosen]
    if not kernels or len({len(kernel) for kernel in kernels}) > 1:
        raise AnalysisError(
            f"no kernels of one size were kept on {name}: add the callback KernelSnapshots to the configuration and "
            f"sweep {PIXELS}: [false, true]"
        )
    values = np.stack([np.linalg.eigvalsh(kernel)[::-1] / np.trace(kernel) for kernel in kernels], axis=1)
    for column in values.T:
        column[~resolved(column)] = np.nan
    return InputSpectra(name, values, tuple(int(seed) for seed in rows.loc[chosen, "seed"]))


def _draw(axis: Axes, found: Sequence[InputSpectra]) -> None:
    for spectra, mark in zip(found, offset_marks(len(found), 1), strict=True):
        rank = np.arange(1.0, 1 + len(spectra.values))
        draw_band(axis, rank, spectra.band(), mark._replace(marker=""), spectra.name)
    log_axes(axis)
    axis.set(xlabel="rank $i$", ylabel=r"$\lambda_i \,/\, \mathrm{tr}\,\Theta$")
    axis.legend()


def _table(found: Sequence[InputSpectra], h: float) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "h": h,
                "inputs": spectra.name,
                "rank": np.arange(1, 1 + len(spectra.values)),
                "seeds": np.isfinite(spectra.values).sum(axis=1),
                **spectra.band()._asdict(),
            }
        )
        for spectra in found
    ]
    return pd.concat(parts, ignore_index=True)


def _findings(found: Sequence[InputSpectra]) -> dict[str, str]:
    findings = {}
    for spectra in found:
        for name, values in spectra.measures().items():
            mean, error = (float(number[0]) for number in mean_and_error(values[None]))
            findings[f"{name}, {spectra.name}"] = with_error(mean, error) if len(values) > 1 else f"{mean:.3g}"
    return findings
