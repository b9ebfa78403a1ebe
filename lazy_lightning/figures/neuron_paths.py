"""Paths of the neurons of a two-layer network in the plane, which hardly move in lazy training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lazy_lightning.figures.scale import scale_math
from lazy_lightning.figures.style import paper_style

_PLUS, _MINUS, _TEACHER = "#D55E00", "#0072B2", "0.1"


class Paths(NamedTuple):
    """The paths of the neurons of one member."""

    alpha: float
    places: NDArray[np.float64]
    """Positions (K, m, 2) of the neurons, alpha s |b_j| a_j, at each observation."""
    signs: NDArray[np.float64]
    """Signs (K, m) of b_j."""


class Teacher(NamedTuple):
    """The neurons of the teacher."""

    places: NDArray[np.float64]
    """Positions (k, 2)."""
    signs: NDArray[np.float64]
    """Signs (k,)."""


def neuron_paths(members: list[Paths], teacher: Teacher | None, h: float = float("nan")) -> Figure:
    """Draws a panel for each member with the paths of its neurons, and the teacher's neurons as arrows.

    Neurons with b > 0 are solid vermilion lines to dots, others dashed blue lines to squares. The arrows have the same
    styles by their signs; the radius of the dotted circle is the norm of the largest of them (arXiv:1812.07956,
    figure 1).

    Args:
        members: whose paths are drawn.
        teacher: None without one.
        h: the width, by which titles state sqrt(h) alpha or gamma, see
            :func:`~lazy_lightning.figures.stated_scale.stated_scale`; NaN for networks without a width.
    """
    with paper_style():
        figure = Figure(figsize=(2.9 * len(members), 3.3))
        axes = figure.subplots(1, len(members), squeeze=False)[0]
        for axis, member in zip(axes, members, strict=True):
            _draw(axis, member, teacher)
            axis.set_title(scale_math(h, member.alpha, own="alpha"))
        _explain(figure, teacher)
    return figure


def _draw(axis: Axes, member: Paths, teacher: Teacher | None) -> None:
    final = member.signs[-1]
    for sign, color, line, marker in ((1.0, _PLUS, "-", "o"), (-1.0, _MINUS, (0, (4, 1.5)), "s")):
        chosen = member.places[:, final == sign]
        axis.plot(chosen[..., 0], chosen[..., 1], color=color, ls=line, lw=0.8)
        axis.plot(*chosen[0].T, marker, color=color, ms=3, mfc="white", mew=0.8, ls="")
        axis.plot(*chosen[-1].T, marker, color=color, ms=4.5, mew=0, ls="")
    reach = float(np.abs(member.places).max())
    if teacher is not None:
        size = float(np.linalg.norm(teacher.places, axis=1).max())
        angle = np.linspace(0.0, 2 * np.pi, 200)
        axis.plot(size * np.cos(angle), size * np.sin(angle), ":", color="0.5", lw=0.8, zorder=0)
        for place, sign in zip(teacher.places, teacher.signs, strict=True):
            _arrow(axis, place, _PLUS if sign > 0 else _MINUS, "-" if sign > 0 else "--")
        reach = max(reach, size)
    axis.set(xlim=(-1.1 * reach, 1.1 * reach), ylim=(-1.1 * reach, 1.1 * reach), aspect="equal")
    axis.axis("off")


def _arrow(axis: Axes, place: NDArray[np.float64], color: str, line: str) -> None:
    """Draws an outlined arrow from the origin."""
    style = {"arrowstyle": "-|>", "lw": 2.2, "ls": line, "color": _TEACHER, "fc": color, "mutation_scale": 11}
    axis.annotate(
        "", (float(place[0]), float(place[1])), (0.0, 0.0), arrowprops={**style, "shrinkA": 0, "shrinkB": 0}, zorder=5
    )


def _explain(figure: Figure, teacher: Teacher | None) -> None:
    marks = [
        Line2D([], [], color=_PLUS, lw=0.8, marker="o", ms=4.5, mew=0, label="neuron, $b > 0$"),
        Line2D([], [], color=_MINUS, lw=0.8, ls=(0, (4, 1.5)), marker="s", ms=4.5, mew=0, label="neuron, $b < 0$"),
        Line2D([], [], color="0.4", ls="", marker="o", ms=3, mfc="white", mew=0.8, label="at the start"),
    ]
    if teacher is not None:
        marks.append(Line2D([], [], color=_TEACHER, lw=2.2, label="teacher (dashed: $b < 0$)"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
