"""The style of all figures, legible in print, in black and white, and without colour vision."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

from lazy_lightning.runs.atomic import written_atomically

STYLE = Path(__file__).with_name("paper.mplstyle")


@contextmanager
def paper_style() -> Iterator[None]:
    """Applies the style of the paper within a context."""
    with mpl.rc_context(fname=str(STYLE)):
        yield


def alpha_colors(alphas: Sequence[float]) -> dict[float, Any]:
    """Returns a colour for each alpha, from feature (dark) to lazy (light)."""
    ordered = sorted(set(alphas))
    positions = [0.15 + 0.6 * i / max(len(ordered) - 1, 1) for i in range(len(ordered))]
    return dict(zip(ordered, mpl.colormaps["viridis"](positions), strict=True))


def between_powers(number: float, _position: int | None = None) -> str:
    r"""Returns the label of a minor tick on a logarithmic axis, only for 2 and 5, because others would overlap.

    >>> print(between_powers(0.02), between_powers(500.0))
    $\mathdefault{2\times 10^{-2}}$ $\mathdefault{5\times 10^{2}}$
    >>> between_powers(0.03)
    ''
    """
    digits, power = f"{number:.0e}".split("e")
    return rf"$\mathdefault{{{digits}\times 10^{{{int(power)}}}}}$" if digits in ("2", "5") else ""


def space_labels(figure: Figure) -> None:
    """Labels minor ticks of logarithmic x axes if there is space: a few over one decade, none over two."""
    for axis in figure.axes:
        low, high = axis.get_xlim()
        if (
            axis.get_xscale() == "log"
            and high > 10 * low
            and isinstance(axis.xaxis.get_minor_formatter(), LogFormatter)
        ):
            few = FuncFormatter(between_powers) if high < 100 * low else NullFormatter()
            axis.xaxis.set_minor_formatter(few)


def save(figure: Figure, stem: Path, suffixes: Sequence[str] = (".png", ".pdf")) -> list[Path]:
    """Writes ``stem.png`` and ``stem.pdf``, or files with other suffixes, atomically and returns their paths.

    The figure is laid out for the first file and keeps that layout, which takes a third of the time of drawing it.
    """
    space_labels(figure)
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the time stamps of fonts for each PDF
    paths = [stem.with_suffix(suffix) for suffix in suffixes]
    for path in paths:
        with written_atomically(path) as temporary, paper_style():
            figure.savefig(temporary)
        if figure.get_layout_engine() is not None:
            figure.set_layout_engine("none")
    return paths
