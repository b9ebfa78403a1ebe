"""Descriptions of the columns in the table of runs, and the preset of observers that measures each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class _Measured(NamedTuple):
    """A group of columns with a common prefix."""

    start: str
    """The prefix of the columns."""
    words: str
    """The description of the columns."""
    preset: str | None
    """A file in ``callbacks/``; None if no preset measures the columns."""


_KNOWN = (
    _Measured("kernel_drift/", "the drift of the tangent kernel", "ntk"),
    _Measured("kernel_evolution/", "the evolution of the tangent kernel", "evolution"),
    _Measured("kernel_alignment", "the alignment of the tangent kernel with the one at w0", "ntk"),
    _Measured("kernel_", "the spectrum of the tangent kernel", "ntk"),
    _Measured("label_alignment", "the alignment of the tangent kernel with the labels", "ntk"),
    _Measured("t1/", "the time t1 at which a network leaves its tangent space", "t1"),
    _Measured("t_lazy/", "the time scale of lazy training", "t1"),
    _Measured("tangent_departure", "the departure from the linearisation", "tangent"),
    _Measured("displacement/", "the displacement of the weights", "displacement"),
    _Measured("dw_", "the change of the weights by layer", "displacement"),
    _Measured("activation_stability/", "the share of gates that are the same as at w0", "stability"),
    _Measured("activation_velocity/", "the speed of the preactivations", "activation"),
    _Measured("activation_", "the drift of the preactivations", "activation"),
    _Measured("laziness", "the laziness index", "laziness"),
    _Measured("path_distance/", "the distance from the path of the linearisation", "laziness"),
    _Measured("sharpness/", "the sharpness of the loss", "sharpness"),
    _Measured("linearized/", "the error of the linearisation", None),
    _Measured("frozen_activations/", "the error with frozen activations", None),
    _Measured("population/", "the population loss", None),
    _Measured("train/error", "the training error", None),
    _Measured("train/loss", "the training loss", None),
    _Measured("test/error", "the test error", None),
    _Measured("test/loss", "the test loss", None),
    _Measured("test/output_rms", "the size of the outputs", None),
)
"""The groups of columns, of which the first with a matching prefix applies."""


def column_words(column: str) -> str:
    """Returns the description of a column, or its name if there is none.

    >>> column_words("kernel_drift/total"), column_words("my_observer/x")
    ('the drift of the tangent kernel', 'my_observer/x')
    """
    known = _known(column)
    return column if known is None else known.words


def not_measured(column: str) -> str:
    """Returns the message that no member has measured a column, with what to do.

    >>> not_measured("kernel_drift/total")
    'the drift of the tangent kernel was not measured: add callbacks/ntk.yaml to the configuration'
    """
    known = _known(column)
    if known is None or known.preset is None:
        return f"{column_words(column)} was not measured: add an observer of it, or a callback that writes it"
    return f"{known.words} was not measured: add callbacks/{known.preset}.yaml to the configuration"


def not_followed(columns: Sequence[str]) -> str:
    """Returns the message that no network has all columns in its curves, with what to do.

    >>> not_followed(["sharpness/largest", "sharpness/limit"])
    'no finished network has the sharpness of the loss in its curves: add callbacks/sharpness.yaml'
    """
    words = " and ".join(dict.fromkeys(map(column_words, columns)))
    presets = dict.fromkeys(known.preset for column in columns if (known := _known(column)) and known.preset)
    remedy = "add " + ", ".join(f"callbacks/{name}.yaml" for name in presets) if presets else "look at curves.parquet"
    return f"no finished network has {words} in its curves: {remedy}"


def _known(column: str) -> _Measured | None:
    return next((known for known in _KNOWN if column.startswith(known.start)), None)
