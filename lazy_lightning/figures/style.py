"""One style for all figures: legible in print, in black and white, and without colour vision."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lazy_lightning.atomic import written_atomically

STYLE = Path(__file__).with_name("paper.mplstyle")


@contextmanager
def paper_style() -> Iterator[None]:
    """Applies the style within the block."""
    with mpl.rc_context(fname=str(STYLE)):
        yield


def alpha_colors(alphas: Sequence[float]) -> dict[float, Any]:
    """A colour for each alpha, from feature (dark) to lazy (light), in the order of alpha."""
    ordered = sorted(set(alphas))
    positions = [0.15 + 0.6 * i / max(len(ordered) - 1, 1) for i in range(len(ordered))]
    return dict(zip(ordered, mpl.colormaps["viridis"](positions), strict=True))


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes ``stem.png`` and ``stem.pdf``, each whole or not at all."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # remarks on the time stamps of fonts, once a PDF
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        with written_atomically(path) as temporary, paper_style():
            figure.savefig(temporary)
    return paths
