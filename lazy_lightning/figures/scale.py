"""The scale that selects the regime, in labels and tables: alpha, sqrt(h) alpha, or gamma = 1/(sqrt(h) alpha).

Every label of a scale is made here, of the quantity that :func:`~lazy_lightning.figures.stated_scale.stated_scale`
selects. Without it, figures with several widths state sqrt(h) alpha, and figures of one network alpha.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lazy_lightning.figures.marks import number, plain
from lazy_lightning.figures.stated_scale import Scale, scale_value, stated, states_gamma, value_of
from lazy_lightning.figures.style import paper_style

ALPHA_LABEL = r"$\alpha$"
SCALE_LABEL = r"$\sqrt{h}\,\alpha$"
_SYMBOLS: dict[Scale, str] = {"alpha": r"\alpha", "sqrt_h_alpha": r"\sqrt{h}\,\alpha", "gamma": r"\gamma"}
_WORDS: dict[Scale, str] = {"alpha": "alpha", "sqrt_h_alpha": "sqrt(h) alpha", "gamma": "gamma"}
_GAMMA_LABEL = r"$\gamma = 1/(\sqrt{h}\,\alpha)$"


def scale_words(h: float, alpha: float, own: Scale = "sqrt_h_alpha") -> str:
    """Describes a scale in words, for captions: ``sqrt(h) alpha = 0.1``, or ``alpha = 0.01`` without a width.

    Args:
        h: the width, NaN for a network without a width.
        alpha: the scale alpha.
        own: the quantity where none is stated.

    >>> scale_words(100.0, 0.01), scale_words(float("nan"), 0.01)
    ('sqrt(h) alpha = 0.1', 'alpha = 0.01')
    """
    scale = stated(h, own)
    return f"{_WORDS[scale]} = {plain(value_of(scale, h, alpha))}"


def scale_math(h: float, alpha: float, own: Scale = "sqrt_h_alpha", digits: int = 3) -> str:
    r"""Describes a scale in mathtext, for legends and titles.

    >>> print(scale_math(100.0, 0.01))
    $\sqrt{h}\,\alpha = 0.1$
    """
    scale = stated(h, own)
    return f"${_SYMBOLS[scale]} = {number(value_of(scale, h, alpha), digits)}$"


def scale_name(h: float, alpha: float) -> str:
    """Returns the label of a curve in a legend with the title :func:`scale_title`.

    >>> scale_name(100.0, 0.01), scale_name(float("nan"), 0.01)
    ('$0.1$', '$0.01$')
    """
    return f"${number(scale_value(h, alpha))}$"


def scale_title(h: float, own: Scale = "sqrt_h_alpha") -> str:
    """Returns the title of a legend whose entries are values of the scale of networks of width h."""
    scale = stated(h, own)
    return _GAMMA_LABEL if scale == "gamma" else f"${_SYMBOLS[scale]}$"


def scale_symbol(h: float, own: Scale = "sqrt_h_alpha") -> str:
    r"""Returns the symbol of the stated quantity in mathtext, without dollars: ``\gamma``."""
    return _SYMBOLS[stated(h, own)]


def scale_word(h: float, own: Scale = "sqrt_h_alpha") -> str:
    """Returns the name of the stated quantity in plain text: ``sqrt(h) alpha``."""
    return _WORDS[stated(h, own)]


def common_scale_words(at: float, name: str = "sqrt(h) alpha") -> str:
    """Describes a value of sqrt(h) alpha that several widths share: ``sqrt(h) alpha = 1``, or ``gamma = 1``.

    There is no common alpha, so if ``alpha`` is stated, sqrt(h) alpha remains.
    """
    return f"gamma = {plain(1 / at)}" if states_gamma() else f"{name} = {plain(at)}"


def span_words(first: float, last: float) -> str:
    """Describes a range of sqrt(h) alpha: ``sqrt(h) alpha from 0.1 to 10``, or that of gamma."""
    name, ends = ("gamma", (1 / last, 1 / first)) if states_gamma() else ("sqrt(h) alpha", (first, last))
    return f"{name} from {plain(ends[0])} to {plain(ends[1])}"


def common_scale_math(at: float, digits: int = 3) -> str:
    """Describes a value of sqrt(h) alpha that several widths share, in mathtext."""
    scale: Scale = "gamma" if states_gamma() else "sqrt_h_alpha"
    return f"${_SYMBOLS[scale]} = {number(value_of(scale, 1.0, at), digits)}$"


def mark_richness(figure: Figure) -> None:
    """Adds an axis of gamma above each panel drawn against sqrt(h) alpha, if gamma is stated.

    The lower axis remains sqrt(h) alpha, to which the slopes in captions refer.
    """
    if states_gamma():
        with paper_style():
            for axis in list(figure.axes):
                if axis.get_xlabel() == SCALE_LABEL:
                    add_richness_axis(axis)


def add_richness_axis(axis: Axes, h: float = 1.0) -> None:
    """Adds an axis of gamma above a panel drawn against alpha of networks of width h; 1 if against sqrt(h) alpha."""
    above = axis.secondary_xaxis("top", functions=(lambda x: _inverse(x, h), lambda x: _inverse(x, h)))
    above.set_xlabel(_GAMMA_LABEL)


def _inverse(x: ArrayLike, h: float) -> NDArray[np.float64]:
    """Returns 1/(sqrt(h) x), its own inverse; matplotlib also evaluates it at 0."""
    with np.errstate(divide="ignore"):
        inverse: NDArray[np.float64] = 1 / (np.sqrt(h) * np.asarray(x, dtype=np.float64))
    return inverse
